#!/usr/bin/env python3
"""Makes config/prices.json and config/NOTICE from two published price lists.

The first is the repository pydantic/genai-prices at a release (prices/data*_slim.json: an array of providers), the base;
the second the crate llm-prices (prices.json), the second opinion.

    python3 config/prices.py --base slim.json --base-version 0.2.3 --base-date 2026-11 --base-licence LICENSE \
        --check prices.json --check-version 1.0.0 --check-licence LICENSE --out config

Every price that both lists have must be the same number, or nothing is written. What the base lacks and the second
list has is taken over: Gemini's flex and priority tiers, OpenAI's ultrafast tier. What is wrong or missing in both is
corrected below, each correction with its reason. Prices are decimal text all the way and leave as whole pico-dollars
(1e-12 USD) a token, a character, a search or an hour; one that is no whole number stops the run.
The output depends on the inputs only. Python 3.9 or later, standard library alone.
"""

import argparse
import hashlib
import json
import re
import sys
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

# Our provider's name -> its name in both lists.
PROVIDERS = {"openai": "openai", "gemini": "google"}

# Our kinds -> the base's keys. Left out: cached images (providers report no such count where we read usage) and video (a
# count of its own is not kept).
KINDS = {
    "input": "input_mtok",
    "cached": "cache_read_mtok",
    "cache_write": "cache_write_mtok",
    "cache_write_long": "cache_write_1h_mtok",
    "output": "output_mtok",
    "input_audio": "input_audio_mtok",
    "cached_audio": "cache_audio_read_mtok",
    "output_audio": "output_audio_mtok",
    "input_image": "input_image_mtok",
    "output_image": "output_image_mtok",
    "audio_hour": "audio_hours",
    "character": "input_mchars",
    "web_search": "web_searches_kcount",
    "file_search": "storage_searches_kcount",
}
LEFT_OUT_KEYS = {"cache_image_read_mtok", "input_video_mtok", "output_video_mtok"}

# What is charged beside tokens: none of it hangs on the tier, as far as both providers' price lists go.
BESIDE = ["audio_hour", "character", "image", "web_search", "grounded", "file_search"]

# How our kinds are written, in their order. `grounded` has no key of the base: see GROUNDED.
ORDER = [kind for kind in KINDS if kind not in BESIDE] + BESIDE

# The kinds that a discount on `input`, `cached` and `output` holds for, when it must be carried over.
CARRIED = {
    "input": ["input", "cache_write", "cache_write_long", "input_audio", "input_image"],
    "cached": ["cached", "cached_audio"],
    "output": ["output", "output_audio", "output_image"],
}

TIERS = ["standard", "flex", "batch", "priority", "ultrafast"]
CONTEXTS = {
    "standard": [],
    "flex": [("service_tier", "flex")],
    "batch": [("processing", "batch")],
    # OpenAI's new name of priority is fast; its answers still say priority.
    "priority": [("service_tier", "priority"), ("service_tier", "fast")],
    # The base does not know it.
    "ultrafast": [],
}

# Corrections: facts, with their reasons in CORRECTIONS.
FREE = {
    "gemini": ["gemma-3", "gemma-3n", "gemma-4-26b-a4b-it", "gemma-4-31b-it"],
    "openai": ["moderation"],
}
UNVERIFIED = {
    ("gemini", "gemini-pro"): "retired; the base's figures are Google's prices per 1,000 characters; other lists say "
    "0.35/1.05 and 0.50/1.50 USD per million tokens",
    ("gemini", "gemini-1.0-pro-vision-001"): "retired; the base's figures are Google's prices per 1,000 characters",
}
AUDIO = [
    # provider, model, name of an entry of its own (None: the model's), then USD per million tokens of audio input,
    # audio output and cached audio (None: no such price)
    ("openai", "gpt-4o-audio-preview", None, "40", "80", None),
    ("openai", "gpt-4o-audio-preview", "gpt-4o-audio-preview-2024-10-01", "100", "200", None),
    ("openai", "gpt-4o-mini-audio-preview", None, "10", "20", None),
    ("openai", "gpt-4o-realtime-preview", "gpt-4o-realtime-preview-2024-10-01", "100", "200", "20"),
]
SPEECH = [  # the one output price is that of audio tokens: it is all they put out
    ("openai", "gpt-4o-mini-tts"), ("gemini", "gemini-2.5-flash-lite-preview-tts"), ("gemini", "gemini-2.5-flash-tts"),
    ("gemini", "gemini-2.5-pro-tts"), ("gemini", "gemini-3.1-flash-tts-preview"), ("gemini", "gemini-3.8-flash-tts"),
    ("gemini", "gemini-3.8-flash-lite-tts"),
]  # fmt: skip
PICTURES = [  # the one output price is that of image tokens
    ("openai", "gpt-image-1"), ("openai", "gpt-image-1-mini"), ("openai", "gpt-image-2"),
    ("openai", "gpt-image-2.5-flare"), ("openai", "gpt-image-2.5-sunburst"),
]  # fmt: skip
ONE_INPUT_PRICE = [  # the provider's page has one input price for all modalities, by the base's notes
    ("gemini", "gemini-3.5-flash-lite"), ("gemini", "gemini-3.6-flash"), ("gemini", "gemini-4-argon"),
    ("gemini", "gemini-omni-1.1-flash"),
]  # fmt: skip
IMAGES = [  # charged by the piece, whatever its size: name, patterns, USD each
    ("imagen-3.0-generate", ["imagen-3.0-generate*"], "0.03"),
    ("imagen-4.0-fast-generate", ["imagen-4.0-fast-generate*"], "0.02"),
    ("imagen-4.0-generate", ["imagen-4.0-generate*"], "0.04"),
    ("imagen-4.0-ultra-generate", ["imagen-4.0-ultra-generate*"], "0.06"),
]
SEARCHES_UNPRICED = [("openai", "gpt-4o-mini", "gpt-4o-mini-search-preview")]  # model, how names begin that are apart
GROUNDED = re.compile(r"gemini-2\.")  # their price of searches is for a grounded prompt, not for a query
CORRECTIONS = [
    "free: gemma on the Gemini API and OpenAI's moderation are free of charge; the base has no price at all for them",
    "gpt-4o-audio-preview, gpt-4o-mini-audio-preview: audio prices added (40/80 and 10/20 USD per million tokens, "
    "100/200 for gpt-4o-audio-preview-2024-10-01); the base would price audio as text (second source: LiteLLM)",
    "gpt-4o-realtime-preview-2024-10-01: audio 100/200, cached audio 20; the base has the price of its successor "
    "(second source: LiteLLM)",
    "speech models: their one output price is the price of audio tokens",
    "gpt-image models with one output price: it is the price of image tokens",
    "models whose page has one input price for all modalities, by the base's own notes: it is that of audio tokens too",
    "searches of the web by Gemini 2 models are charged by the prompt that was grounded, whatever number of queries it "
    "took (Google's price list: 35 USD per 1,000 grounded prompts; since Gemini 3: 14 USD per 1,000 search queries); the "
    "base has one key for both",
    "gpt-4o-mini-search-preview: without a price of searches; the base has it with gpt-4o-mini, whose searches are other "
    "ones, and has none for gpt-4o-search-preview",
    "imagen: prices of an image added (Google's price list); the base does not have these models",
    "Gemini flex and priority, OpenAI ultrafast: from llm-prices; for dates, context steps and kinds that it does not "
    "list, the ratio of the listed price to the standard price is kept (Google: flex is half, priority 1.8 times "
    "the standard)",
]


class Stop(Exception):
    """Why no price book can be made."""


# What the base's prices are for: of so many. An hour stays an hour, as hardly any price of one is a whole number of
# pico-dollars a millisecond.
PER = {"_mtok": 10**6, "_mchars": 10**6, "_kcount": 10**3, "_hours": 1}


def pico(usd, where, per=10**6):
    """USD for so many (a million tokens) -> whole pico-dollars for one."""
    value = Decimal(usd) * 10**12 / per
    if value != value.to_integral_value() or value < 0:
        raise Stop(f"{where}: {usd} USD for {per} is no whole number of pico-dollars for one")
    return int(value)


def per(kind):
    return next(many for end, many in PER.items() if KINDS[kind].endswith(end))


# --- patterns -----------------------------------------------------------------------------------------------------


def patterns(clause, where):
    """A match clause of the base -> (patterns, exceptions) of ours: `*` is anything, `#` one digit."""
    (kind, arg), = clause.items()
    if kind == "or":
        found, but = [], []
        for part in arg:
            more, more_but = patterns(part, where)
            found += more
            but += more_but
        return found, but
    if kind == "and" and len(arg) == 2 and arg[1] == {"regex": r"^(?!.*-[tT][tT][sS](?:$|-))"}:
        found, but = patterns(arg[0], where)
        return found, but + ["*-tts", "*-tts-*"]
    if kind == "regex":
        text = arg.replace(r"\d{4}-\d{2}-\d{2}", "####-##-##").replace(r"\d", "#").replace(r"\.", ".")
        text = text[1:-1] if text.endswith("$") else text[1:] + "*"
        if not arg.startswith("^") or not re.fullmatch(r"[a-z0-9.#-]+\*?", text):
            raise Stop(f"{where}: cannot write the expression {arg} as a pattern")
        return [text], []
    if "*" in arg or "#" in arg:
        raise Stop(f"{where}: {arg} holds a character of our patterns")
    form = {"equals": "{}", "starts_with": "{}*", "ends_with": "*{}", "contains": "*{}*"}
    if kind not in form:
        raise Stop(f"{where}: unknown kind of match {kind}")
    return [form[kind].format(arg)], []


def fits(pattern, name):
    rule = "".join({"*": ".*", "#": "[0-9]"}.get(c, re.escape(c)) for c in pattern)
    return re.fullmatch(rule, name) is not None


def matched(model, name):
    return any(fits(p, name) for p in model["match"]) and not any(fits(p, name) for p in model["except"])


# --- the base -----------------------------------------------------------------------------------------------------


def start_of(entry, where):
    constraint = entry.get("constraint")
    if constraint is None:
        return ""
    if list(constraint) != ["start_date"]:
        raise Stop(f"{where}: unknown constraint {constraint}")
    return constraint["start_date"]


def standard_at(model, date, where):
    prices = model["prices"]
    if isinstance(prices, dict):
        return prices
    active = [entry for entry in prices if start_of(entry, where) <= date]
    return (active[-1] if active else prices[0])["prices"]


def resolved_at(model, when, date, where):
    """The base's own rule: the first active variant that has a key gives it, else the standard price."""
    own = {}
    for variant in model.get("price_variants", []):
        if list(variant["when"].items()) == [when] and start_of(variant, where) <= date:
            for key, price in variant["prices"].items():
                own.setdefault(key, price)
    return {**standard_at(model, date, where), **own} if own else None


def steps(prices, where):
    """Prices of one moment -> [(above, {kind: pico})], lowest step first."""
    heard = prices.get("input_audio_hours")
    if heard is not None and heard != prices.get("audio_hours"):
        raise Stop(f"{where}: an hour of audio has two prices")
    unknown = set(prices) - set(KINDS.values()) - LEFT_OUT_KEYS - {"input_audio_hours"}
    if unknown:
        raise Stop(f"{where}: unknown kinds of price {sorted(unknown)}")
    kinds = {kind: prices[key] for kind, key in KINDS.items() if key in prices}
    edges = {0}
    for price in kinds.values():
        if isinstance(price, dict):
            edges |= {tier["start"] for tier in price["tiers"]}
    rows = []
    for edge in sorted(edges):
        row = {}
        for kind, price in kinds.items():
            if isinstance(price, dict):
                reached = [tier["price"] for tier in price["tiers"] if tier["start"] <= edge]
                price = reached[-1] if reached else price["base"]
            row[kind] = pico(price, where, per(kind))
        rows.append((edge, row))
    return rows


def tier_rows(model, tier, where):
    """[(from, above, {kind: pico})] of one tier, oldest first, a row only where something changes."""
    dates = {""}
    if isinstance(model["prices"], list):
        dates |= {start_of(entry, where) for entry in model["prices"]}
    for variant in model.get("price_variants", []):
        if list(variant["when"].items())[0] in CONTEXTS[tier]:
            dates.add(start_of(variant, where))
    rows, last = [], None
    for date in sorted(dates):
        if tier == "standard":
            prices = standard_at(model, date, where)
        else:
            views = [resolved_at(model, when, date, where) for when in CONTEXTS[tier]]
            views = [view for view in views if view is not None]
            if any(view != views[0] for view in views):
                raise Stop(f"{where}: two names of tier {tier} have two prices")
            prices = views[0] if views else None
        now = steps(prices, where) if prices else None
        if now and now != last:
            rows += [(date, above, row) for above, row in now]
            last = now
    return rows


def read_base(providers):
    models, left_out = [], {}
    for ours, theirs in PROVIDERS.items():
        (provider,) = [p for p in providers if p["id"] == theirs]
        left_out[ours] = []
        for entry in provider["models"]:
            name = entry["id"]
            where = f"{theirs}/{name}"
            if ours == "gemini" and "claude" in name:
                continue  # another provider's models, sold by Google
            match, but = patterns(entry["match"], where)
            match = sorted(set(match), key=match.index)
            model = {"provider": ours, "model": name, "match": match, "except": sorted(set(but))}
            if name in FREE[ours]:
                if entry["prices"]:
                    raise Stop(f"{where}: has a price now; it is listed here as free")
                model["rates"] = {"standard": [("", 0, {"input": 0, "output": 0})]}
                say(model, SOURCES["free"])
            else:
                model["rates"] = {tier: tier_rows(entry, tier, where) for tier in TIERS}
                if not any(row for _, _, row in model["rates"]["standard"]):
                    left_out[ours].append(name)
                    continue
            if matched(model, name) and name not in model["match"]:
                model["match"].insert(0, name)  # found by name, without trying patterns
            models.append(model)
    return models, left_out


# --- corrections --------------------------------------------------------------------------------------------------


# What a corrected entry says of itself.
SOURCES = {
    "free": "free of charge; the base has no price, 2026-11-24",
    "audio": "audio: LiteLLM 1.80.0, 2026-11-24",
    "speech": "the base's one output price is that of audio, 2026-11-24",
    "pictures": "the base's one output price is that of images, 2026-11-24",
    "one_input": "one input price for all modalities by the base's notes, 2026-11-24",
    "searches": "without the price of searches, which is that of another model, 2026-11-24",
    "images": "images by the piece: Google's price list, 2026-11-24",
    "grounded": "searches by the grounded prompt: Google's price list, 2026-11-24",
    "unverified": "the base's figures, which other lists contradict, 2026-11-24",
}


def say(model, source):
    model["source"] = "; ".join(dict.fromkeys(model.get("source", "").split("; ") + [source])).removeprefix("; ")


def corrected(models):
    def of(provider, name):
        found = [m for m in models if (m["provider"], m["model"]) == (provider, name)]
        if len(found) != 1:
            raise Stop(f"a correction is for {provider}/{name}, which the base does not have")
        return found[0]

    def text_only(row):
        return {kind: price for kind, price in row.items() if not kind.endswith("_audio")}

    def each_row(model):
        return [row for rows in model["rates"].values() for _, _, row in rows]

    def put(model, kind, price):
        for row in each_row(model):
            if kind in row:
                raise Stop(f"{model['model']}: the base has a price for {kind} now; drop the correction")
            row[kind] = price(row)

    for provider, name, own, audio_in, audio_out, cached in AUDIO:
        model = of(provider, name)
        if own:
            rates = {tier: [(start, above, text_only(row)) for start, above, row in rows]
                     for tier, rows in model["rates"].items()}  # fmt: skip
            place = models.index(model)
            model = {"provider": provider, "model": own, "match": [own], "except": [], "rates": rates}
            models.insert(place, model)
        say(model, SOURCES["audio"])
        for kind, price in (("input_audio", audio_in), ("output_audio", audio_out), ("cached_audio", cached)):
            if price:
                put(model, kind, lambda row, price=price: pico(price, name))
    for provider, name in SPEECH:
        say(of(provider, name), SOURCES["speech"])
        put(of(provider, name), "output_audio", lambda row: row["output"])
    for provider, name in PICTURES:
        say(of(provider, name), SOURCES["pictures"])
        put(of(provider, name), "output_image", lambda row: row["output"])
    for provider, name in ONE_INPUT_PRICE:
        model = of(provider, name)
        say(model, SOURCES["one_input"])
        put(model, "input_audio", lambda row: row["input"])
        if all("cached" in row for row in each_row(model)):
            put(model, "cached_audio", lambda row: row["cached"])
    for provider, name, begin in SEARCHES_UNPRICED:
        model = of(provider, name)
        match = [known for known in model["match"] if known.startswith(begin)]
        model["match"] = [known for known in model["match"] if known not in match]
        rates = {tier: [(start, above, {kind: price for kind, price in row.items() if kind not in BESIDE})
                        for start, above, row in rows] for tier, rows in model["rates"].items()}  # fmt: skip
        own = {"provider": provider, "model": begin, "match": match, "except": [], "rates": rates}
        say(own, SOURCES["searches"])
        models.insert(models.index(model), own)
    for name, match, usd in IMAGES:
        if any(model["model"] == name or any(matched(model, p.rstrip("*")) for p in match) for model in models):
            raise Stop(f"the base has {name} now; drop the correction")
        rates = {"standard": [("", 0, {"image": pico(usd, name, 1)})]}
        model = {"provider": "gemini", "model": name, "match": match, "except": [], "rates": rates}
        say(model, SOURCES["images"])
        models.append(model)
    for model in models:
        searches = [row for row in each_row(model) if "web_search" in row]
        if model["provider"] == "gemini" and GROUNDED.match(model["model"]) and searches:
            for row in searches:
                row["grounded"] = row.pop("web_search")
            say(model, SOURCES["grounded"])
    for (provider, name), reason in UNVERIFIED.items():
        of(provider, name)["unverified"] = reason
        say(of(provider, name), SOURCES["unverified"])


# --- the second opinion -------------------------------------------------------------------------------------------


def at(rows, date, above):
    """The row of a tier that holds on `date` for a request of `above` + 1 tokens."""
    begun = [row for row in rows if row[0] <= date]
    if not begun:
        return None
    reached = [row for row in begun if row[0] == begun[-1][0] and row[1] <= above]
    return reached[-1][2]


def second_opinion(models, listed):
    """Compares, and returns how many numbers were equal, and the flex and priority prices that the base lacks."""
    equal, wrong, missing = 0, [], []
    names = {"input": "input", "output": "output", "cached": "cache_read"}

    def compare(rows, date, above, theirs, label):
        nonlocal equal
        row = at(rows, date, above)
        for kind, key in theirs.items():
            if key is None:
                continue
            ours = row.get(kind) if row else None
            if ours == pico(key, label):
                equal += 1
            else:
                wrong.append(f"{label} {kind}: {ours} is not {pico(key, label)}")

    for entry in listed["models"]:
        provider = next((ours for ours, theirs in PROVIDERS.items() if theirs == entry["provider"]), None)
        if provider is None:
            continue
        model = next((m for m in models if m["provider"] == provider and matched(m, entry["model"])), None)
        if model is None:
            wrong.append(f"{provider}/{entry['model']} is not in the base")
            continue
        label, date = f"{provider}/{entry['model']}", entry["checked"]
        rates = model["rates"]
        moments = [(date, 0, entry)]
        moments += [(later["effective"], 0, later) for later in entry["scheduled"] or []]
        if entry["long_context"]:
            moments.append((date, entry["long_context"]["threshold_tokens"], entry["long_context"]))
        for moment, above, prices in moments:
            standard = {kind: prices.get(key) for kind, key in names.items()}
            compare(rates["standard"], moment, above, standard, f"{label} {moment} >{above}")
            batch = {"input": prices.get("batch_input"), "output": prices.get("batch_output")}
            compare(rates["batch"], moment, above, batch, f"{label} batch {moment} >{above}")
        for name, prices in (entry["other_tiers"] or {}).items():
            tier = {"fast": "priority"}.get(name, name)
            wanted = {kind: prices.get(key) for kind, key in names.items()}
            if tier not in TIERS:
                wrong.append(f"{label}: unknown tier {name}")
            elif rates[tier]:
                compare(rates[tier], date, 0, wanted, f"{label} {tier}")
            elif provider == "gemini" or tier == "ultrafast":
                missing.append((model, tier, date, {k: pico(v, label) for k, v in wanted.items() if v is not None}))
            else:
                wrong.append(f"{label}: the base has no {tier} prices")
    if wrong:
        raise Stop("the lists disagree:\n  " + "\n  ".join(wrong))
    return equal, missing


def take_over(missing, source):
    for model, tier, date, prices in missing:
        model.setdefault("tier_sources", {})[tier] = f"{source}, {date}"
        standard = model["rates"]["standard"]
        now = at(standard, date, 0)
        starts = sorted({date} | {start for start, _, _ in standard if start > date})
        for start in starts:
            base = max(s for s, _, _ in standard if s <= start)
            for above, row in [(a, r) for s, a, r in standard if s == base]:
                ours = {}
                for leader, kinds in CARRIED.items():
                    for kind in kinds:
                        if kind in row:
                            price = row[kind] * Fraction(prices[leader], now[leader])
                            if price.denominator != 1:
                                raise Stop(f"{model['model']} {tier} {kind}: {price} is no whole number")
                            ours[kind] = int(price)
                ours.update({kind: row[kind] for kind in BESIDE if kind in row})
                model["rates"][tier].append((start, above, ours))


# --- writing ------------------------------------------------------------------------------------------------------


def sha256(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def written(models, about, source):
    """One line for each row of prices: a diff of two price books can be read."""

    def one(value):
        return json.dumps(value, ensure_ascii=False)

    for_people = json.dumps(about, indent=2, ensure_ascii=False).replace("\n", "\n  ")
    lines = ["{", '  "format": 1,', '  "built_in": true,', f'  "source": {one(source)},', f'  "about": {for_people},']
    lines.append('  "models": [')
    for number, model in enumerate(models):
        keys = ["provider", "model", "match", "except", "unverified", "source", "tier_sources"]
        head = [f'"{key}": {one(model[key])}' for key in keys if model.get(key)]
        lines.append("    {" + ", ".join(head) + ', "rates": [')
        rows = []
        for tier in TIERS:
            for start, above, row in model["rates"].get(tier, []):
                entry = {"tier": tier, **({"from": start} if start else {}), **({"above": above} if above else {})}
                rows.append("      " + one({**entry, **{k: row[k] for k in ORDER if k in row}}))
        lines.append(",\n".join(rows))
        lines.append("    ]}" + ("," if number + 1 < len(models) else ""))
    return "\n".join(lines + ["  ]", "}", ""])


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("base", "base-version", "base-date", "base-licence", "check", "check-version", "check-licence", "out"):
        args.add_argument("--" + name, required=True)
    args = args.parse_args()
    base = json.loads(Path(args.base).read_text(), parse_float=Decimal)
    listed = json.loads(Path(args.check).read_text(), parse_float=Decimal)

    models, left_out = read_base(base)
    equal, missing = second_opinion(models, listed)
    take_over(missing, f"llm-prices {args.check_version}")
    corrected(models)
    about = {
        "unit": "pico-dollars (1e-12 USD) a token, a character, a search, an hour of audio",
        "made_by": "config/prices.py; corrections belong there",
        "sources": [
            {"name": "genai-prices", "version": args.base_version, "date": args.base_date, "licence": "MIT",
             "url": "https://github.com/pydantic/genai-prices", "sha256": sha256(args.base)},
            {"name": "llm-prices", "version": args.check_version, "date": listed["generated"], "licence": "MIT",
             "url": "https://github.com/Mattbusel/llm-prices", "sha256": sha256(args.check),
             "equal_prices": equal, "tiers_taken_over": len(missing)},
        ],
        "corrections": CORRECTIONS,
        "not_priced": left_out,
        "not_priced_kinds": "video, cached images, dall-e (by size and quality), cache storage, tools other than searches",
        "allowances": "what a provider gives free a day or a month, such as searches, no single answer says: everything "
        "is charged at the list price",
    }  # fmt: skip
    out = Path(args.out)
    # What the notice says of other files stays.
    there = out.joinpath("NOTICE").read_text() if out.joinpath("NOTICE").exists() else ""
    head, *others = re.split(r"\n(?=--- )", there)
    ours = ("--- genai-prices ---", "--- llm-prices ---")
    notice = (head or "config/prices.json holds price figures from two published lists.\n").rstrip() + "\n"
    for name, licence in (("genai-prices", args.base_licence), ("llm-prices", args.check_licence)):
        notice += f"\n--- {name} ---\n\n{Path(licence).read_text().strip()}\n"
    notice += "".join(f"\n{other.rstrip()}\n" for other in others if not other.startswith(ours))
    out.joinpath("prices.json").write_text(written(models, about, f"genai-prices {args.base_version}, {args.base_date}"))
    out.joinpath("NOTICE").write_text(notice)
    said = f"{len(models)} models; {equal} prices are the same in both lists; {len(missing)} tiers taken over"
    print(said, file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    except Stop as stop:
        sys.exit(f"prices.py: {stop}")
