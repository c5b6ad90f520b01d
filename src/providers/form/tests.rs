//! Forms as clients write them, and such as two readers could read in two ways.

use super::*;

const TYPE: &str = "multipart/form-data; boundary=\"--b-1\"";
const MODEL: &str = "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n";

fn form(parts: &[(&str, &str)]) -> String {
    let mut form = String::new();
    for (head, content) in parts {
        form.push_str(&format!("----b-1\r\nContent-Disposition: form-data; {head}\r\n\r\n{content}\r\n"));
    }
    form + "----b-1--\r\n"
}

type Read = Result<(Option<String>, bool), &'static str>;

fn read_as(content_type: &str, pieces: &[&[u8]]) -> Read {
    let mut reader = FormReader::new(content_type).unwrap();
    let read = pieces.iter().try_for_each(|piece| reader.feed(piece)).and_then(|()| reader.finish());
    match read {
        Ok(()) => Ok((reader.model.clone(), reader.stream == Some(true))),
        Err(Refusal::BadForm { reason }) => Err(reason),
        Err(other) => panic!("{other:?}"),
    }
}

fn read(pieces: &[&[u8]]) -> Read {
    read_as(TYPE, pieces)
}

/// Reads a body whole and in single bytes.
fn read_both(content_type: &str, body: &[u8]) -> Read {
    let whole = read_as(content_type, &[body]);
    let bytes: Vec<&[u8]> = body.chunks(1).collect();
    assert_eq!(read_as(content_type, &bytes).is_ok(), whole.is_ok(), "{}", body.escape_ascii());
    whole
}

fn of(model: &str, stream: bool) -> Read {
    Ok((Some(model.to_owned()), stream))
}

#[test]
fn fields_are_read_at_every_cut_and_files_are_passed_over() {
    let file = "\r\n--\r\n----b-\r\n----b-\r\nname=\"model\"\r\n\r\n--b-1 no\r\r\n----b";
    let long = "x".repeat(300);
    let body = form(&[
        (r#"name="file"; filename="a;b.wav""#, file),
        (r#"name="prompt""#, &long),
        (r#"name="model""#, "gpt-4o-transcribe"),
        ("name=stream", "true"),
    ]);
    let expected = of("gpt-4o-transcribe", true);
    for cut in 0..=body.len() {
        let (head, tail) = body.as_bytes().split_at(cut);
        assert_eq!(read(&[head, tail]), expected, "cut at {cut}");
    }
    let bytes: Vec<&[u8]> = body.as_bytes().chunks(1).collect();
    assert_eq!(read(&bytes), expected);
}

#[test]
fn a_form_without_a_model_has_none_and_one_with_two_is_refused() {
    let body = form(&[(r#"name="file""#, "model"), (r#"filename="model"; name="x""#, "y")]);
    assert_eq!(read(&[body.as_bytes()]), Ok((None, false)));
    let model = (r#"name="model""#, "whisper-1");
    let twice = form(&[model, ("Name=model", "whisper-1")]);
    assert_eq!(read(&[twice.as_bytes()]), Err("model stands twice"));
    let stream = (r#"name="stream""#, "true");
    let twice = form(&[stream, model, stream]);
    assert_eq!(read(&[twice.as_bytes()]), Err("stream stands twice"));
    let long = form(&[("name=model", &"x".repeat(FIELD_BYTES_MAX + 1))]);
    assert_eq!(read(&[long.as_bytes()]), Err("a field is too long"));
    let most = form(&[("name=model", &"x".repeat(FIELD_BYTES_MAX))]);
    assert!(read(&[most.as_bytes()]).is_ok());
    let head = form(&[(&format!("name=\"{}\"", "x".repeat(HEAD_BYTES_MAX)), "")]);
    assert_eq!(read(&[head.as_bytes()]), Err("a part's head is too long"));
}

/// A part with this head and another model behind one of `whisper-1`.
fn part(head: &str) -> String {
    format!("{MODEL}--b\r\n{head}\r\n\r\ngpt-4o-transcribe\r\n--b--\r\n")
}

fn named(parameters: &str) -> String {
    part(&format!("Content-Disposition: form-data; {parameters}"))
}

fn demand_refused(bodies: &[String]) {
    for body in bodies {
        assert!(read_both("multipart/form-data; boundary=b", body.as_bytes()).is_err(), "{body:?}");
    }
}

#[test]
fn a_type_that_two_parsers_read_as_two_boundaries_is_refused() {
    for content_type in [
        "multipart/form-data; boundary=a; boundary=b",
        "multipart/form-data; boundary=b; Boundary=a",
        "multipart/form-data; boundary=b; boundary=b",
        "multipart/form-data; boundary*=utf-8''a; boundary=b",
        "multipart/form-data; boundary*0=b",
        "multipart/form-data; x=\"; boundary=a\"; boundary=b",
        "multipart/form-data; boundary=b=a",
        "multipart/form-data; boundary=b a",
        "multipart/form-data; boundary=b, multipart/form-data; boundary=a",
        "multipart/form-data; boundary=\"b\"a",
        "multipart/form-data; boundary=\"b",
        "multipart/form-data; boundary=\"\\b\"",
        "multipart/form-data; boundary=\" b\"",
        "multipart/form-data; boundary=\"b \"",
        "multipart/form-data; boundary = b",
        "multipart/form-data boundary=b",
        "multipart/mixed; boundary=b",
    ] {
        let body = format!("{MODEL}--b--\r\n");
        assert!(read_both(content_type, body.as_bytes()).is_err(), "{content_type}");
    }
}

/// Each was read as a form of `whisper-1`, while another reader found another model in it.
#[test]
fn a_form_that_two_parsers_read_as_two_models_is_refused() {
    demand_refused(&[
        // Names that others decode, cut off, or take the other of.
        named("name*=utf-8''model"),
        named("name*0=\"mo\"; name*1=\"del\""),
        named("name=\"x\"; name*=utf-8''model"),
        named("name=\"mo\\del\""),
        named("name=\"mo%64el\""),
        named("name=\"=?utf-8?q?model?=\""),
        named("name=\"x\"; name=\"model\""),
        named("name=\"x\"; NAME=model"),
        named("name=\"x;\" ; name=\"model\""),
        named("name=\"x\"; filename=\"a\\\"; name=\\\"model\""),
        named("name=\"x\"; filename=\"a;name=model\""),
        named("filename=\"a\\\\\"; name=\"model\""),
        named("filename=\"a\\\"; name=\"model\""),
        named("name=\"x\"; filename=\"a\"; filename=\"b\""),
        named("name=\"model[]\""),
        named("name=\"Model\""),
        named("name=\"model \""),
        named("name=\"model\0\""),
        named("name=\"\""),
        named("name=\"model"),
        named("name=\"x\" name=\"model\""),
        named("name=\"x\", name=\"model\""),
        named("name = \"model\""),
        named("name='model'"),
        named("name=mod el"),
        named("filename=\"a\""),
        part("Content-Disposition: attachment; name=\"model\""),
        part("Content-Disposition: form-data; name=\"x\"\r\nContent-Disposition: form-data; name=\"model\""),
        part("Content-Disposition: form-data;\r\n name=\"model\""),
        part("Content-Disposition: form-data; name=\"x\";\r\n\tname=\"model\""),
        part("Content-Disposition: form-data; name=\"x\"\nContent-Disposition: form-data; name=\"model\""),
        part("Content-Disposition: form-data; name=\"x\"\rContent-Disposition: form-data; name=\"model\""),
        part("Content-Disposition : form-data; name=\"model\""),
        part(": form-data; name=\"model\""),
        part("Content-Type: text/plain"),
        part(""),
    ]);
}

#[test]
fn a_form_that_two_parsers_part_differently_is_refused() {
    let other = "--a\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\ngpt-4o-transcribe\r\n--a--\r\n";
    demand_refused(&[
        // Contents that others cut or decode.
        part("Content-Disposition: form-data; name=\"x\"\r\nContent-Type: multipart/mixed; boundary=c"),
        part("Content-Disposition: form-data; name=\"x\"\r\nContent-Transfer-Encoding: quoted-printable"),
        part("Content-Disposition: form-data; name=\"x\"\r\nContent-Encoding: gzip"),
        part("Content-Disposition: form-data; name=\"x\"\r\nContent-Length: 3"),
        part("Content-Disposition: form-data; name=\"x\"\r\nContent-Length: +17"),
        // Lines that others take for delimiters, and delimiters that others take for lines.
        format!("{MODEL}--b\nContent-Disposition: form-data; name=\"model\"\n\ngpt-4o-transcribe\r\n--b--\r\n"),
        format!(
            "{MODEL}--b\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\ny\n--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\ngpt-4o-transcribe\r\n--b--\r\n"
        ),
        format!("{MODEL}--b\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\ny\r--b\r\n\r\n\r\n--b--\r\n"),
        format!("{MODEL}--b\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\ny--b--\r\n--b--\r\n"),
        format!("{MODEL}--b\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\n--b\r\n\r\n\r\n--b--\r\n"),
        format!("{MODEL}--b\r\nContent-Disposition: form-data; name=\"x\"; filename=\"--b\"\r\n\r\n\r\n--b--\r\n"),
        format!("{MODEL}--b \r\nContent-Disposition: form-data; name=\"x\"\r\n\r\ny\r\n--b--\r\n"),
        format!("{MODEL}--bc\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\ngpt-4o-transcribe\r\n--b--\r\n"),
        // What stands around the parts.
        format!("{other}{MODEL}--b--\r\n"),
        format!("\r\n\r\n{MODEL}--b--\r\n"),
        format!("\n{MODEL}--b--\r\n"),
        format!("{MODEL}--b--\r\n{other}"),
        format!("{MODEL}--b--{MODEL}--b--\r\n"),
        MODEL.to_owned(),
        format!("{MODEL}--b\r\n"),
        format!("{MODEL}--b-"),
        format!("{MODEL}--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\ngpt-4o-transcribe"),
        String::new(),
        // A model that is none everywhere.
        MODEL.replace("whisper-1", "whisper-1 ") + "--b--\r\n",
        MODEL.replace("whisper-1", "whisper-1\0") + "--b--\r\n",
        MODEL.replace("name=\"model\"", "name=\"model\"; filename=\"\"") + "--b--\r\n",
        MODEL.replace("name=\"model\"", "name=\"model\"; filename*=utf-8''a") + "--b--\r\n",
    ]);
}

/// Heads and types as curl, requests, httpx, aiohttp, undici, form-data, Go, OkHttp, Apache, Jersey, .NET and Faraday write them.
#[test]
fn what_clients_write_is_taken() {
    for boundary in [
        "------------------------ade6c48b35a969c5",
        "fcdef94e94eef81e6fb9c59db00ceab5",
        "----formdata-undici-040726467216",
        "----WebKitFormBoundary7MA4YWxkTrZu0gW",
        "\"7a1c1d2e-9b0f-4f5e-8f5f-0d3b6b1a2c3d\"",
        "\"----=_Part_0_1330205.1764000000\"",
        "\"it's(a)+_legal,-./:=? one\"",
        "_b.0+1'2",
        "b; charset=UTF-8",
        "b;charset=\"utf-8\";",
    ] {
        let written = boundary.split("; ").next().unwrap().split(";c").next().unwrap().trim_matches('"');
        let body = MODEL.replace("--b", &format!("--{written}")) + &format!("--{written}--\r\n");
        for kind in ["multipart/form-data; ", "multipart/form-data;", "Multipart/Form-Data; charset=utf-8; "] {
            if !(kind.contains("charset") && boundary.contains("charset")) {
                let content_type = format!("{kind}boundary={boundary}");
                assert_eq!(read_both(&content_type, body.as_bytes()), of("whisper-1", false), "{content_type}");
            }
        }
    }
    for head in [
        r#"Content-Disposition: form-data; name="file"; filename="a.wav""#,
        r#"Content-Disposition: form-data; name="file"; filename="a %22q%22\x.wav""#,
        r#"Content-Disposition: form-data; name="file"; filename="a %22q%22\\x.wav""#,
        r#"Content-Disposition: form-data; name="file"; filename="a \"q\"\\x.wav""#,
        r#"Content-Disposition: form-data; name="file"; filename="a;b, 'c' = name.wav""#,
        "Content-Disposition: form-data; name=\"file\"; filename=\"ü 𝄞.wav\"\r\nContent-Type: audio/wav",
        "Content-Type: audio/wav\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a%20%22q%22%5Cx.wav\"",
        "Content-Disposition: form-data; name=\"file\"; filename=\"%C3%BC.wav\"; filename*=\"UTF-8''%C3%BC.wav\"",
        "Content-Disposition: form-data; name=\"file\"; filename*=UTF-8''%C3%BC.wav",
        "content-disposition: form-data; name=file; filename=a.wav; filename*=utf-8''a.wav",
        "Content-Disposition: form-data; filename=\"a.wav\"; modification-date=\"Sat, 28 Nov 2026 10:00:00 GMT\"; size=4; name=\"file\"",
        "Content-Disposition: form-data; name=\"timestamp_granularities[]\"",
        "Content-Disposition: form-data; name=\"file\"; filename=\"a\"\r\nContent-Length: 4\r\nContent-Type: audio/wav\r\nContent-Transfer-Encoding: binary",
        "Content-Disposition: form-data; name=\"file\"\r\nContent-Type: text/plain; charset=ISO-8859-1\r\nContent-Transfer-Encoding: 8bit",
    ] {
        for end in ["", "\r\n", "\r\n\r\n"] {
            let body = format!("\r\n--b\r\n{head}\r\n\r\nRIFF\r\n{MODEL}--b--{end}");
            assert_eq!(read_both("multipart/form-data; boundary=b", body.as_bytes()), of("whisper-1", false), "{head}");
        }
    }
    let typed = "--b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Disposition: form-data; name=model\r\n\r\n";
    let body = format!("{typed}whisper-1\r\n--b--\r\n");
    assert_eq!(read_both("multipart/form-data; boundary=b", body.as_bytes()), of("whisper-1", false));
}

#[test]
fn only_a_form_is_one_and_one_without_a_boundary_is_refused() {
    for other in ["", "application/json", "text/multipart", "x-multipart/form-data; boundary=b"] {
        assert!(FormReader::new(other).is_none(), "{other}");
    }
    for (wrong, reason) in [
        ("multipart/form-data", "its Content-Type has no boundary"),
        ("multipart/form-data; charset=utf-8", "its Content-Type has no boundary"),
        ("multipart/mixed; boundary=b", "it is not multipart/form-data"),
        (
            "multipart/form-data; boundary=\"\"",
            "its boundary is not 1 to 70 letters, digits or '()+_,-./:=? of RFC 2046",
        ),
        ("multipart/form-data; boundary=", "a head has a parameter that is not name=token or name=\"text\""),
    ] {
        assert_eq!(read_both(wrong, format!("{MODEL}--b--").as_bytes()), Err(reason), "{wrong}");
        assert_eq!(read_both(wrong, b""), Err(reason), "{wrong}");
    }
    let (most, longer) = ("b".repeat(70), "b".repeat(71));
    let empty = |boundary: &str| {
        read_both(&format!("multipart/form-data; boundary={boundary}"), format!("--{boundary}--").as_bytes())
    };
    assert_eq!(empty(&most), Ok((None, false)));
    assert!(empty(&longer).is_err());
}

#[test]
fn a_form_without_usage_is_estimated_by_its_length() {
    let reader = FormReader::new(TYPE).unwrap();
    assert_eq!(reader.call(960_000).prompt, Prompt::TextBytes(4 * 960));
    assert_eq!(reader.call(u64::MAX).prompt, Prompt::TextBytes(u64::MAX.div_ceil(1000) * 4));
}

#[test]
fn a_field_names_no_file_by_its_id() {
    for (head, is_refused) in [
        (r#"name="images[0][file_id]""#, true),
        ("name=\"file_ids[]\"", true),
        (r#"filename="a.png"; name="mask[FILE_ID]""#, true),
        (r#"name="image"; filename="file_id.png""#, false),
        (r#"name="image[]"; filename="a.png"; filename*=utf-8''file_id.png"#, false),
        (r#"name="file""#, false),
    ] {
        let body = form(&[(r#"name="prompt""#, "file_id"), (head, "file-1")]);
        assert_eq!(read_both(TYPE, body.as_bytes()).is_err(), is_refused, "{head}");
    }
}
