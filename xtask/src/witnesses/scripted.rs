//! A scripted OpenAI server: it answers as servers do that know nothing of Ollama, with fields and events that
//! farllama's own `/v1` does not have. What it says depends on the request: it repeats the last text, calls the first
//! tool, thinks as `gpt-oss:20b`, and breaks off as `breaks`.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    thread,
};

const MODELS: [&str; 5] = ["gpt-oss:20b", "smollm2:135m", "agent", "all-minilm", "breaks"];

/// Starts it, for as long as this process runs. Returns its address.
pub(super) fn start() -> Result<String, String> {
    let failed = |error: std::io::Error| format!("cannot start the scripted OpenAI server: {error}");
    let listener = TcpListener::bind("127.0.0.1:0").map_err(failed)?;
    let addr = listener.local_addr().map_err(failed)?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Ends when the connection does.
            thread::spawn(move || while answer(&stream).is_ok() {});
        }
    });
    Ok(format!("http://{addr}"))
}

fn answer(mut stream: &TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let (mut first, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if first.is_empty() {
            line.clone_into(&mut first);
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = String::new();
    (&mut reader).take(length).read_to_string(&mut body)?;
    let path = first.split(' ').nth(1).unwrap_or_default();
    let model = after(&body, r#""model":""#);
    match path {
        "/v1/models" => respond(stream, "200 OK", &models()),
        "/v1/chat/completions" | "/v1/embeddings" if !MODELS.contains(&model) => {
            let error = format!(
                r#"{{"object":"error","message":"The model `{model}` does not exist.","type":"NotFoundError","param":null,"code":404}}"#
            );
            respond(stream, "404 Not Found", &error)
        }
        "/v1/chat/completions" => {
            let deltas = deltas(&body, model);
            if !body.contains(r#""stream":true"#) {
                return respond(stream, "200 OK", &whole(&deltas));
            }
            stream.write_all(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n",
            )?;
            let mut event = |text: &str| {
                let event = format!("data: {text}\n\n");
                stream.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes())
            };
            for delta in &deltas {
                event(&format!(
                    r#"{{"id":"c","object":"chat.completion.chunk","choices":[{{"index":0,"delta":{{{delta}}},"logprobs":null,"finish_reason":null}}]}}"#
                ))?;
            }
            if model == "breaks" {
                return Err(std::io::ErrorKind::ConnectionAborted.into());
            }
            let finish = finish(&deltas);
            event(&format!(
                r#"{{"id":"c","choices":[{{"index":0,"delta":{{}},"finish_reason":"{finish}","stop_reason":null}}]}}"#
            ))?;
            event(&format!(r#"{{"id":"c","choices":[],"usage":{USAGE}}}"#))?;
            event("[DONE]")?;
            stream.write_all(b"0\r\n\r\n")
        }
        "/v1/embeddings" => respond(stream, "200 OK", &vectors(&body)),
        _ => respond(stream, "404 Not Found", r#"{"detail":"Not Found"}"#),
    }
}

const USAGE: &str = r#"{"prompt_tokens":9,"completion_tokens":3,"total_tokens":12,"prompt_tokens_details":null}"#;

fn respond(mut stream: &TcpStream, status: &str, body: &str) -> std::io::Result<()> {
    let length = body.len();
    stream.write_all(
        format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
            .as_bytes(),
    )
}

/// The rest of the JSON text that follows the last `lead`.
fn after<'a>(body: &'a str, lead: &str) -> &'a str {
    body.rsplit_once(lead).and_then(|(_, rest)| rest.split('"').next()).unwrap_or_default()
}

fn models() -> String {
    let models = MODELS.map(|model| {
        format!(r#"{{"id":"{model}","object":"model","created":1750000000,"owned_by":"vllm","root":"/models/{model}","max_model_len":4096}}"#)
    });
    format!(r#"{{"object":"list","data":[{}]}}"#, models.join(","))
}

/// What the model says, in pieces.
fn deltas(body: &str, model: &str) -> Vec<String> {
    let mut deltas = vec![r#""role":"assistant","content":"""#.to_owned()];
    if body.contains(r#""tools":"#) && !body.contains(r#""role":"tool""#) {
        // Arguments come in pieces, and only the first one has an id.
        let call = |call: &str| format!(r#""tool_calls":[{{"index":0,{call}}}]"#);
        deltas
            .push(call(r#""id":"chatcmpl-tool-1","type":"function","function":{"name":"get_weather","arguments":""}"#));
        deltas.extend(
            [r#"{\"ci"#, r#"ty\": \"Rome\"}"#].map(|part| call(&format!(r#""function":{{"arguments":"{part}"}}"#))),
        );
        return deltas;
    }
    if model == "gpt-oss:20b" {
        deltas
            .extend([" They", " want it."].map(|part| format!(r#""reasoning":"{part}","reasoning_content":"{part}""#)));
    }
    let said = match body.contains(r#""response_format":"#) {
        true => r#"{\"age\": 7}"#.to_owned(),
        false => format!("You said: {}", after(body, r#""content":""#)),
    };
    let (one, two) = said.split_at(said.char_indices().nth(5).map_or(0, |(at, _)| at));
    deltas.extend([one, two].map(|part| format!(r#""content":"{part}""#)));
    deltas
}

fn finish(deltas: &[String]) -> &'static str {
    if deltas.iter().any(|delta| delta.contains("tool_calls")) { "tool_calls" } else { "stop" }
}

/// The pieces as one answer.
fn whole(deltas: &[String]) -> String {
    let all =
        |lead: &str| deltas.iter().filter_map(|delta| delta.strip_prefix(lead)?.strip_suffix('"')).collect::<String>();
    let (content, thought) = (
        all(r#""content":""#),
        deltas
            .iter()
            .filter(|delta| delta.starts_with(r#""reasoning""#))
            .map(|delta| after(delta, r#""reasoning_content":""#))
            .collect::<String>(),
    );
    let finish = finish(deltas);
    let message = match finish {
        "stop" => format!(r#""content":"{content}","reasoning_content":"{thought}","tool_calls":[]"#),
        _ => r#""content":null,"tool_calls":[{"id":"chatcmpl-tool-1","type":"function","function":{"name":"get_weather","arguments":"{\"city\": \"Rome\"}"}}]"#.to_owned(),
    };
    format!(
        r#"{{"id":"c","object":"chat.completion","created":1750000000,"choices":[{{"index":0,"message":{{"role":"assistant",{message}}},"finish_reason":"{finish}"}}],"usage":{USAGE}}}"#
    )
}

/// A vector for each text, which are numbers even where base64 is asked for.
fn vectors(body: &str) -> String {
    let inputs = body.split_once(r#""input":["#).and_then(|(_, rest)| rest.split(']').next()).unwrap_or_default();
    let count = inputs.matches('"').count() / 2;
    let dimensions = body
        .split_once(r#""dimensions":"#)
        .and_then(|(_, rest)| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok());
    let vectors: Vec<String> = (0..count)
        .map(|nth| {
            let mut numbers = vec!["0.5".to_owned(); dimensions.unwrap_or(384)];
            numbers[0] = format!("{nth}.25");
            format!(r#"{{"object":"embedding","index":{nth},"embedding":[{}]}}"#, numbers.join(","))
        })
        .collect();
    format!(
        r#"{{"object":"list","model":"e","data":[{}],"usage":{{"prompt_tokens":4,"total_tokens":4}}}}"#,
        vectors.join(",")
    )
}
