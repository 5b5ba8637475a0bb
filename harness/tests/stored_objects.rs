//! The objects that clients come back for, as `async-openai` reads them: responses in the background, conversations and
//! their items, stored chat completions, files and batches. Each is created, changed, listed and deleted by its client
//! against a proxy before the mock.

use std::time::{Duration, Instant};

use async_openai::{
    Client,
    config::OpenAIConfig,
    types::{
        InputSource,
        batches::{Batch, BatchStatus},
        chat::CreateChatCompletionResponse,
        files::{CreateFileRequest, FileInput, FilePurpose, OpenAIFilePurpose},
        responses::{
            CompactResource, ConversationItemList, ConversationResource, Response, ResponseStreamEvent, Status,
            TokenCountsResource,
        },
    },
};
use farllama::{Config, Running, serve};
use futures_util::StreamExt;
use mock_ollama::{Mock, Script};
use serde_json::{Value, json};

const MODEL: &str = "smollm2:135m";

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(20);

struct Served {
    client: Client<OpenAIConfig>,
    _proxy: Running,
    _mock: Mock,
}

async fn served(script: Script) -> Served {
    let mock = Mock::start(script).await.unwrap();
    let mut config = Config::default();
    config.local.port = 0;
    config.remote.host = "127.0.0.1".to_owned();
    config.remote.port = mock.addr().port();
    let proxy = serve(config).await.unwrap();
    let settings = OpenAIConfig::new().with_api_base(format!("http://{}/v1", proxy.addr())).with_api_key("any");
    Served { client: Client::with_config(settings), _proxy: proxy, _mock: mock }
}

/// A response in the background.
async fn begun(client: &Client<OpenAIConfig>) -> Response {
    let request = json!({"model": MODEL, "input": "Say lantern.", "background": true});
    client.responses().create_byot::<Value, Response>(request).await.unwrap()
}

#[tokio::test]
async fn responses_in_the_background() {
    let Served { client, .. } = &served(Script::default()).await;
    let queued = begun(client).await;
    assert_eq!((&queued.status, queued.background), (&Status::Queued, Some(true)));
    let since = Instant::now();
    let ended = loop {
        let now: Response = client.responses().retrieve(&queued.id).await.unwrap();
        assert!(matches!(now.status, Status::Queued | Status::InProgress | Status::Completed), "{now:?}");
        if now.status == Status::Completed {
            break now;
        }
        assert!(since.elapsed() < PATIENCE, "{now:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert!(ended.output_text().is_some_and(|text| !text.is_empty()), "{ended:?}");
    let mut stream = client.responses().retrieve_stream(&queued.id).await.unwrap();
    let mut events = Vec::new();
    while let Some(event) = stream.next().await {
        events.push(event.unwrap());
    }
    assert!(matches!(events.first(), Some(ResponseStreamEvent::ResponseCreated(_))), "{events:?}");
    assert!(matches!(events.get(1), Some(ResponseStreamEvent::ResponseQueued(_))), "{events:?}");
    let Some(ResponseStreamEvent::ResponseCompleted(last)) = events.last() else { panic!("{events:?}") };
    assert_eq!(last.response, ended, "the last event has the object that is stored");
    let items = client.responses().list_input_items(&queued.id).await.unwrap();
    assert_eq!(items.data.len(), 1);
    assert_eq!(client.responses().cancel(&queued.id).await.unwrap(), ended, "one that has ended stays");
    assert!(client.responses().delete(&queued.id).await.unwrap().deleted);
}

#[tokio::test]
async fn a_canceled_response_and_one_that_failed() {
    let Served { client, .. } = &served(Script::on("/api/chat").model(MODEL).delay(Duration::from_secs(30))).await;
    let queued = begun(client).await;
    let canceled = client.responses().cancel(&queued.id).await.unwrap();
    assert_eq!(canceled.status, Status::Cancelled);
    let failed: Response = client
        .responses()
        .create_byot(json!({"model": "no-such-model", "input": "hi", "background": true}))
        .await
        .unwrap();
    let since = Instant::now();
    while client.responses().retrieve(&failed.id).await.unwrap().status != Status::Failed {
        assert!(since.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let failed = client.responses().retrieve(&failed.id).await.unwrap();
    assert!(failed.error.is_some_and(|error| error.message.contains("no-such-model")));
}

#[tokio::test]
async fn compactions_and_counts() {
    let Served { client, .. } = &served(Script::default()).await;
    let request = json!({"model": MODEL, "input": "Say lantern."});
    let compacted: CompactResource = client.responses().compact_byot(request.clone()).await.unwrap();
    assert_eq!(compacted.output.len(), 1);
    let counted: TokenCountsResource = client.responses().get_input_token_counts_byot(request).await.unwrap();
    assert!(counted.input_tokens > 0);
}

#[tokio::test]
async fn conversations_and_their_items() {
    let Served { client, .. } = &served(Script::default()).await;
    let conversations = client.conversations();
    let message = |text: &str| json!({"type": "message", "role": "user", "content": text});
    let made: ConversationResource =
        conversations.create_byot(json!({"metadata": {"topic": "lamps"}, "items": [message("one")]})).await.unwrap();
    let request = json!({"model": MODEL, "input": "two", "conversation": made.id});
    let response: Response = client.responses().create_byot(request).await.unwrap();
    assert_eq!(response.conversation.map(|conversation| conversation.id), Some(made.id.clone()));
    let items = conversations.items(&made.id);
    let added: ConversationItemList = items.create_byot(json!({"items": [message("three")]})).await.unwrap();
    assert_eq!(added.data.len(), 1);
    let all = items.list().await.unwrap();
    // Two messages of the user's, what the model said in between, and the last one.
    assert_eq!(all.data.len(), 4, "{all:?}");
    let last = all.last_id.as_deref().unwrap();
    let first = items.retrieve(last).await.unwrap();
    assert_eq!(Some(&first), all.data.last());
    assert_eq!(items.delete(last).await.unwrap().id, made.id);
    assert_eq!(items.list().await.unwrap().data.len(), 3);
    let changed: ConversationResource =
        conversations.update_byot(&made.id, json!({"metadata": {"topic": "seas"}})).await.unwrap();
    assert_eq!(json!(changed.metadata), json!({"topic": "seas"}));
    assert_eq!(conversations.retrieve(&made.id).await.unwrap(), changed);
    assert!(conversations.delete(&made.id).await.unwrap().deleted);
}

#[tokio::test]
async fn stored_chat_completions() {
    let Served { client, .. } = &served(Script::default()).await;
    let request = json!({"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "store": true,
        "metadata": {"run": "1"}});
    let made: CreateChatCompletionResponse = client.chat().create_byot(request).await.unwrap();
    let listed = client.chat().list().await.unwrap();
    assert_eq!((listed.data.len(), &listed.data[0].id, listed.has_more), (1, &made.id, false));
    assert_eq!(client.chat().retrieve(&made.id).await.unwrap().choices, made.choices);
    let messages = client.chat().messages(&made.id).await.unwrap();
    assert_eq!((messages.data.len(), messages.data[0].content.as_deref()), (1, Some("hi")));
    let changed: CreateChatCompletionResponse =
        client.chat().update_byot(&made.id, json!({"metadata": {"run": "2"}})).await.unwrap();
    assert_eq!(changed.choices, made.choices);
    assert!(client.chat().delete(&made.id).await.unwrap().deleted);
    assert!(client.chat().list().await.unwrap().data.is_empty());
}

fn upload(name: &str, text: &str, purpose: FilePurpose) -> CreateFileRequest {
    let source = InputSource::VecU8 { filename: name.to_owned(), vec: text.as_bytes().to_vec() };
    CreateFileRequest { file: FileInput { source }, purpose, expires_after: None }
}

#[tokio::test]
async fn files() {
    let Served { client, .. } = &served(Script::default()).await;
    let made = client.files().create(upload("notes.txt", "a lantern", FilePurpose::UserData)).await.unwrap();
    assert_eq!((&made.purpose, made.bytes), (&OpenAIFilePurpose::UserData, Some(9)));
    assert_eq!(client.files().list().await.unwrap().data, std::slice::from_ref(&made));
    assert_eq!(client.files().retrieve(&made.id).await.unwrap(), made);
    assert_eq!(client.files().content(&made.id).await.unwrap(), "a lantern");
    assert!(client.files().delete(&made.id).await.unwrap().deleted);
    assert!(client.files().retrieve(&made.id).await.is_err());
}

#[tokio::test]
async fn batches() {
    let Served { client, .. } = &served(Script::default()).await;
    let line = |id: &str, model: &str| {
        let body = json!({"model": model, "messages": [{"role": "user", "content": "hi"}]});
        json!({"custom_id": id, "method": "POST", "url": "/v1/chat/completions", "body": body}).to_string() + "\n"
    };
    let batch = async |lines: &str| {
        let file = client.files().create(upload("asks.jsonl", lines, FilePurpose::Batch)).await.unwrap();
        let request = json!({"input_file_id": file.id, "endpoint": "/v1/chat/completions", "completion_window": "24h",
            "metadata": {"run": "1"}});
        client.batches().create_byot::<Value, Batch>(request).await.unwrap()
    };
    let until = async |id: &str, status: BatchStatus| {
        let since = Instant::now();
        loop {
            let now = client.batches().retrieve(id).await.unwrap();
            if now.status == status {
                return now;
            }
            assert!(since.elapsed() < PATIENCE, "{now:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let made = batch(&[line("a", MODEL), line("b", "no-such-model")].concat()).await;
    let ended = until(&made.id, BatchStatus::Completed).await;
    let counts = ended.request_counts.clone().unwrap();
    assert_eq!((counts.total, counts.completed, counts.failed), (2, 1, 1));
    for file in [&ended.output_file_id, &ended.error_file_id] {
        let content = client.files().content(file.as_deref().unwrap()).await.unwrap();
        assert!(serde_json::from_slice::<Value>(&content).unwrap()["response"]["status_code"].is_u64());
    }
    let failed = until(&batch("no JSON\n").await.id, BatchStatus::Failed).await;
    assert_eq!(failed.errors.as_ref().unwrap().data[0].line, Some(1));
    assert_eq!(client.batches().list().await.unwrap().data, [failed, ended.clone()]);
    assert_eq!(client.batches().cancel(&made.id).await.unwrap(), ended, "one that has ended stays");
}
