//! What requests and answers have to do with objects that a provider keeps: which ones a path or a body names, which ones an
//! answer makes. Each provider has a small table of its own beside its routes.
//!
//! May use: `domain`, the shared readers. All tenants share the provider's account, so whoever knows the id of an object can
//! have it: whose it is has to be asked before a request goes on. What is looked for here errs on the side of finding too
//! much, and what is named in a way that no object can have is told as such.

use std::collections::HashSet;
use std::marker::PhantomData;

use serde::de::IgnoredAny;

use crate::domain::object::{Made, ObjectName};
use crate::domain::refusal::Refusal;

use super::json_doc::DocumentBuffer;
use super::request::{DEPTH_MAX, TOO_DEEP};
use super::sse::SseScanner;
use super::text::{split_string, unescaped};

/// Objects that one request may name. A store of files takes 500 at once.
const NAMED_MAX: usize = 512;

/// Objects that are noted of one answer: a response has some tens of items.
const MADE_MAX: usize = 512;

/// A name that is no object's is shown up to this.
const SHOWN_CHARS_MAX: usize = 128;

/// What a request has to do with objects by its route.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Touches {
    /// The object that its path names.
    pub named: Option<Named>,
    /// It asks for a list that holds the objects of everybody.
    pub lists: bool,
    /// Its body may name objects, and is not read otherwise.
    pub refers: bool,
    /// What its answer makes.
    pub makes: Makes,
    /// It deletes the object, whose name another tenant may give to another one then.
    pub frees: bool,
}

/// Which objects the answer to a request makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Makes {
    /// None.
    #[default]
    Nothing,
    /// Those that it tells of, unless the request says that nothing is to be stored.
    UnlessNotStored,
    /// Those that it tells of, if the request says that it is to be stored.
    IfStored,
    /// Those that it tells of.
    All,
    /// One, whose name the client may have chosen: whoever had that name before has it no more.
    Chosen,
    /// Those that hold the results of the object that the path names.
    Results,
}

impl Makes {
    /// Which ones, where the request says whether its answer is to be `stored`.
    pub fn of(self, stored: Option<bool>) -> Self {
        match (self, stored) {
            (Self::UnlessNotStored, Some(false)) => Self::Nothing,
            (Self::IfStored, None | Some(false)) => Self::Nothing,
            (Self::UnlessNotStored | Self::IfStored, _) => Self::All,
            (makes, _) => makes,
        }
    }
}

/// An object as a request names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Named {
    /// By a name that an object may have.
    Object(ObjectName),
    /// By one that none has: this is how it begins.
    Nothing(Box<str>),
}

impl Named {
    /// What `text` names.
    pub(super) fn of(text: &str) -> Self {
        ObjectName::parse(text).map_or_else(|| Self::nothing(text), Self::Object)
    }

    pub(super) fn nothing(text: &str) -> Self {
        Self::Nothing(text.chars().take(SHOWN_CHARS_MAX).collect())
    }

    /// Its name, or the refusal of what has none.
    pub fn name(self) -> Result<ObjectName, Refusal> {
        match self {
            Self::Object(name) => Ok(name),
            Self::Nothing(name) => Err(Refusal::UnknownObject { name }),
        }
    }
}

/// How a provider's JSON names objects.
pub(super) trait Naming {
    /// The members that are not looked into. What is never a name, whatever it looks like: what a client tells of itself,
    /// schemas, arguments and results of its tools.
    const SKIPPED: &'static [&'static str] =
        &["metadata", "labels", "parameters", "parametersJsonSchema", "schema", "responseSchema", "args", "response"];
    /// The members whose texts name objects, wherever they stand.
    const MEMBERS: &'static [&'static str];
    /// The members below which an object may be named by its `id` alone.
    const BY_ID: &'static [&'static str] = &[];
    /// What the text of such a member names; `None` where that is no object of the provider's.
    fn named(member: &str, text: &str) -> Option<Named>;
    /// The item that an object without a name of its own stands for: its `id`, by what else it says of itself.
    fn item(id: &str, of: &Item) -> Option<Named>;
}

/// What an object in a request body says of itself.
#[derive(Debug, Default)]
pub(super) struct Item {
    /// The member that it is the value of.
    pub(super) member: Option<&'static str>,
    /// Its `type`.
    pub(super) kind: Option<Box<str>>,
    /// Whether it had one.
    has_kind: bool,
    /// Whether it had two that differ: which of them a provider goes by is not ours to say.
    pub(super) has_kinds: bool,
    /// Whether it has content, and so is whole.
    pub(super) has_content: bool,
    /// Whether what it stands for is in it, sealed.
    pub(super) is_sealed: bool,
}

/// All objects that a body names which is read for its names alone.
pub(super) fn references<N: Naming>(body: &[u8]) -> Result<Vec<Named>, Refusal> {
    let named = named_in::<N>(body)?;
    // Only now: it remembers every bracket that is open.
    serde_json::from_slice::<IgnoredAny>(body).map_err(|_| Refusal::BadJson { reason: "it is not JSON" })?;
    Ok(named)
}

/// All objects that a body names which is JSON, or which nobody reads who does not see JSON in it.
pub(super) fn named_in<N: Naming>(body: &[u8]) -> Result<Vec<Named>, Refusal> {
    let (open, found, known) = (Vec::new(), Vec::new(), HashSet::new());
    let mut walk = Walk::<N> { open, ids: 0, found, known, naming: PhantomData };
    let mut rest = body;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'"' => {
                let (string, after) = split_string(rest);
                rest = after;
                walk.string(&unescaped(string), matches!(after.trim_ascii_start(), [b':', ..]));
            }
            // What is open is kept, and so are the ids in it: a bracket without end would take all memory.
            b'{' | b'[' if walk.open.len() >= DEPTH_MAX as usize => return Err(TOO_DEEP),
            b'{' | b'[' => walk.opens(*byte == b'{'),
            b'}' | b']' => walk.closes(),
            _ => {}
        }
        if walk.found.len() > NAMED_MAX || walk.ids > NAMED_MAX {
            return Err(Refusal::BadJson { reason: "it names more than 512 objects of the provider" });
        }
    }
    Ok(walk.found)
}

/// The objects that a message of a session names, if a quick look says that there may be some.
pub(super) fn named_in_message<N: Naming>(message: &[u8]) -> Result<Vec<Named>, Refusal> {
    if may_name::<N>(message, N::BY_ID) { named_in::<N>(message) } else { Ok(Vec::new()) }
}

/// A walk through a body that is known to be JSON. Names of members are read as JSON has them: an escape hides none.
struct Walk<N> {
    open: Vec<Open>,
    /// How many ids stand in all of these.
    ids: usize,
    found: Vec<Named>,
    /// The same: a name may stand there as often as the body has room for it.
    known: HashSet<Named>,
    naming: PhantomData<N>,
}

/// An object or an array that is not over.
#[derive(Default)]
struct Open {
    is_object: bool,
    /// The known member that it is the value of, also through arrays.
    member: Option<&'static str>,
    is_skipped: bool,
    /// Somebody chose the names of its members, so that none of them says what is in it.
    is_free: bool,
    /// Of an object the member whose value comes next.
    next: Next,
    ids: Vec<String>,
    item: Item,
}

/// What the value of a member is to a walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Next {
    #[default]
    Other,
    Known(&'static str),
    Id,
    Kind,
    Sealed,
    Content,
    Skipped,
    Free,
}

impl<N: Naming> Walk<N> {
    fn opens(&mut self, is_object: bool) {
        if let Some(open) = self.open.last_mut() {
            open.item.has_content |= open.is_object && open.next == Next::Content;
        }
        let (member, is_skipped, is_free) = match self.open.last() {
            None => (None, false, false),
            Some(Open { is_object: false, member, is_skipped, is_free, .. }) => (*member, *is_skipped, *is_free),
            Some(Open { next, is_skipped, is_free, .. }) => match next {
                Next::Known(member) => (Some(*member), *is_skipped, *is_free),
                Next::Skipped => (None, *is_skipped || !is_free, *is_free),
                next => (None, *is_skipped, *is_free || *next == Next::Free),
            },
        };
        let item = Item { member, ..Item::default() };
        self.open.push(Open { is_object, member, is_skipped, is_free, item, ..Open::default() });
    }

    fn closes(&mut self) {
        let Some(Open { ids, item, .. }) = self.open.pop() else { return };
        self.ids = self.ids.saturating_sub(ids.len());
        for id in ids {
            self.see(N::item(&id, &item));
        }
    }

    fn string(&mut self, text: &str, is_name: bool) {
        let Some(open) = self.open.last_mut().filter(|open| !open.is_skipped) else { return };
        let named = match (open.is_object, open.next) {
            (true, _) if is_name => {
                open.next = next::<N>(text);
                None
            }
            (false, _) => open.member.and_then(|member| N::named(member, text)),
            (true, Next::Known(member)) => N::named(member, text),
            (true, Next::Id) => {
                open.ids.push(text.to_owned());
                self.ids = self.ids.saturating_add(1);
                None
            }
            (true, Next::Kind) => {
                open.item.says(text);
                None
            }
            (true, Next::Content) => {
                open.item.has_content |= !text.is_empty();
                None
            }
            (true, Next::Sealed) => {
                open.item.is_sealed |= !text.is_empty();
                None
            }
            (true, Next::Other | Next::Skipped | Next::Free) => None,
        };
        self.see(named);
    }

    fn see(&mut self, named: Option<Named>) {
        if let Some(named) = named
            && !self.known.contains(&named)
        {
            self.known.insert(named.clone());
            self.found.push(named);
        }
    }
}

fn next<N: Naming>(name: &str) -> Next {
    match name {
        "id" => Next::Id,
        "type" => Next::Kind,
        "encrypted_content" => Next::Sealed,
        "content" => Next::Content,
        // Of a stored prompt: files and images, each under a name that whoever wrote the prompt gave it.
        "variables" => Next::Free,
        name if N::SKIPPED.contains(&name) => Next::Skipped,
        name => {
            let mut known = N::MEMBERS.iter().chain(N::BY_ID);
            known.find(|known| **known == name).map_or(Next::Other, |known| Next::Known(known))
        }
    }
}

impl Item {
    /// Takes in a `type`.
    fn says(&mut self, kind: &str) {
        self.has_kinds |= self.has_kind;
        (self.kind, self.has_kind) = (Some(kind.into()), true);
    }
}

/// Whether a body that is JSON may name objects, those below `by_id` also by their `id` alone. Where this says no, there is
/// none for [`named_in`] to find: it goes by the same names. One pass from colon to colon, and one for escapes: text and
/// media have few of either, and a call that names nothing is not read a second time.
pub(super) fn may_name<N: Naming>(body: &[u8], by_id: &[&str]) -> bool {
    let (mut has_id, mut has_by_id) = (false, false);
    for at in memchr::memchr_iter(b':', body) {
        let Some(name) = body.get(..at).and_then(member_before) else { continue };
        has_id |= name == b"id";
        has_by_id |= by_id.iter().any(|member| member.as_bytes() == name);
        if (has_id && has_by_id) || N::MEMBERS.iter().any(|member| member.as_bytes() == name) {
            return true;
        }
    }
    may_hide_names(body)
}

/// No member that is looked for has a longer name.
const MEMBER_BYTES_MAX: usize = 32;

/// The name that ends what stands before a colon, if it is a short one.
fn member_before(body: &[u8]) -> Option<&[u8]> {
    let before = body.trim_ascii_end().strip_suffix(b"\"")?;
    let near = before.get(before.len().saturating_sub(MEMBER_BYTES_MAX + 1)..)?;
    near.get(memchr::memrchr(b'"', near)? + 1..)
}

/// Whether the names of members in a body may be written with escapes, as `\u0066` for f: then they are not what they look
/// like.
fn may_hide_names(body: &[u8]) -> bool {
    memchr::memmem::find_iter(body, b"\\u00").any(|at| matches!(body.get(at + 4), Some(b'2'..=b'7')))
}

/// Reads the objects that one message of an answer tells of.
pub(super) type Tells = fn(message: &[u8], found: &mut Vec<Made>);

/// Looks for the objects that an answer makes.
pub struct Finder {
    form: Form,
    tells: Tells,
    /// Found and not yet taken.
    found: Vec<Made>,
    /// All that were found.
    all: Vec<ObjectName>,
}

enum Form {
    Unknown,
    Events(SseScanner),
    Document(DocumentBuffer),
    /// None that is understood.
    Other,
}

impl Finder {
    /// One for an answer of this type.
    pub(super) fn new(content_type: Option<&str>, tells: Tells) -> Self {
        let essence = content_type.and_then(|value| value.split(';').next()).unwrap_or_default().trim();
        let is_events = essence.eq_ignore_ascii_case("text/event-stream");
        let form = if is_events { Form::Events(SseScanner::default()) } else { Form::Unknown };
        Self { form, tells, found: Vec::new(), all: Vec::new() }
    }

    /// Looks at the next decoded bytes.
    pub fn look(&mut self, piece: &[u8]) {
        if matches!(self.form, Form::Unknown) {
            self.form = match piece.iter().find(|byte| !byte.is_ascii_whitespace()) {
                None => return,
                Some(b'{') => Form::Document(DocumentBuffer::default()),
                Some(_) => Form::Other,
            };
        }
        let (tells, mut told) = (self.tells, Vec::new());
        match &mut self.form {
            Form::Unknown | Form::Other => {}
            // An event without a name is not read: deltas are most of a stream.
            Form::Events(scanner) => scanner.feed(piece, |event| match event.data {
                Some(data) if memchr::memmem::find(data, b"\"id\"").is_some() => tells(data, &mut told),
                _ => {}
            }),
            Form::Document(buffer) => buffer.feed(piece, |document, _| tells(document, &mut told)),
        }
        for made in told {
            if self.all.len() < MADE_MAX && !self.all.contains(&made.name) {
                self.all.push(made.name.clone());
                self.found.push(made);
            }
        }
    }

    /// What was found since this was last asked.
    pub fn take(&mut self) -> Vec<Made> {
        std::mem::take(&mut self.found)
    }
}
