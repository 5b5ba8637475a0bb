//! Who reads the exchanges that have ended. A new reader is one file here and one entry in the list.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{Exchange, ExchangeLog, History, Inspector, Metrics, Tracer, log};

/// Reads exchanges that have ended. It must not wait for anything: it runs on the event loop.
pub(crate) trait Reader: fmt::Debug + Send + Sync {
    /// Whether it wants any exchange at all now. What no reader wants is not put together.
    fn wants(&self) -> bool {
        true
    }

    /// Takes an exchange. What it needs as text, it formats itself.
    fn read(&self, exchange: &Exchange<'_>);
}

/// All readers, in the order in which they get an exchange. They outlive a reload of the settings.
#[derive(Debug)]
pub(crate) struct Readers(Vec<Box<dyn Reader>>);

impl Default for Readers {
    fn default() -> Self {
        Self::logging(None)
    }
}

/// Keeps what the inspector has copied.
impl Reader for Inspector {
    fn read(&self, exchange: &Exchange<'_>) {
        self.finish(exchange);
    }

    fn wants(&self) -> bool {
        // An exchange that began while it was on may end later.
        self.was_on()
    }
}

impl<T: Reader> Reader for Arc<T> {
    fn wants(&self) -> bool {
        T::wants(self)
    }

    fn read(&self, exchange: &Exchange<'_>) {
        T::read(self, exchange);
    }
}

impl Readers {
    /// All readers. The lines of exchanges go to `log`, or to `tracing` where there is none.
    pub(crate) fn logging(log: Option<ExchangeLog>) -> Self {
        let line = log.map_or(log::Line::Event, log::Line::Direct);
        // The log line comes first: what others log about an exchange follows it.
        Self::new(vec![Box::new(line), Box::<ContextAdvice>::default()])
    }

    /// These readers too, after the others.
    pub(crate) fn and(
        mut self,
        metrics: Arc<Metrics>,
        history: Arc<History>,
        inspector: Arc<Inspector>,
        tracer: Arc<Tracer>,
    ) -> Self {
        self.0.extend([Box::new(metrics) as Box<dyn Reader>, Box::new(history), Box::new(inspector), Box::new(tracer)]);
        self
    }

    pub(crate) fn new(readers: Vec<Box<dyn Reader>>) -> Self {
        Self(readers)
    }

    /// Whether any reader wants an exchange now.
    pub(super) fn want(&self) -> bool {
        self.0.iter().any(|reader| reader.wants())
    }

    /// Hands an exchange to those who want it.
    pub(super) fn read(&self, exchange: &Exchange<'_>) {
        self.0.iter().filter(|reader| reader.wants()).for_each(|reader| reader.read(exchange));
    }
}

/// Names the setting for long prompts when one is refused for its length for the first time.
#[derive(Debug, Default)]
struct ContextAdvice(AtomicBool);

impl Reader for ContextAdvice {
    fn wants(&self) -> bool {
        !self.0.load(Ordering::Relaxed)
    }

    fn read(&self, exchange: &Exchange<'_>) {
        let too_long = exchange.error.is_some_and(|error| error.row().code == Some("context_length_exceeded"));
        if too_long && !self.0.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                target: "farllama",
                "a prompt does not fit into the model's context; agents need a larger one: --context-max 65536 lets contexts grow"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, Mutex},
        time::{Duration, Instant},
    };

    use axum::{body::Body, response::Response};
    use http::Method;
    use http_body_util::BodyExt;

    use super::*;
    use crate::observe::{Ending, Facts, InFlight, Opened, Recorder, watch};

    /// Writes down what it reads, if it wants anything.
    #[derive(Debug)]
    struct Notes {
        name: &'static str,
        wants: bool,
        seen: Arc<Mutex<Vec<String>>>,
    }

    impl Reader for Notes {
        fn wants(&self) -> bool {
            self.wants
        }

        fn read(&self, exchange: &Exchange<'_>) {
            let Exchange { id, model, ending, .. } = exchange;
            self.seen.lock().unwrap().push(format!("{} {id} {} {}", self.name, model.unwrap_or("-"), ending.as_str()));
        }
    }

    fn opened(readers: &Arc<Readers>) -> Opened {
        let recorder = Recorder::default();
        recorder.model("m");
        let facts = Facts {
            id: "req_1".into(),
            method: Method::GET,
            route: "/".to_owned(),
            endpoint: "other",
            peer: None,
            started: Instant::now(),
            recorder,
        };
        Opened::new(facts, Arc::new(InFlight::default()), readers.clone())
    }

    #[tokio::test]
    async fn every_reader_gets_each_exchange_once_in_order_and_those_who_want_none_get_none() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let reader = |name, wants| -> Box<dyn Reader> { Box::new(Notes { name, wants, seen: seen.clone() }) };
        let readers =
            Arc::new(Readers::new(vec![reader("first", true), reader("idle", false), reader("second", true)]));
        let whole = watch(opened(&readers), None, false, Response::new(Body::from("a")));
        assert_eq!(whole.into_body().collect().await.unwrap().to_bytes(), "a");
        drop(opened(&readers));
        let expected = ["first req_1 m complete", "second req_1 m complete"];
        let gone = ["first req_1 m client gone", "second req_1 m client gone"];
        assert_eq!(*seen.lock().unwrap(), [expected, gone].concat());
        assert!(!Readers::new(vec![reader("idle", false)]).want());
    }

    #[test]
    fn the_setting_for_long_prompts_is_named_once() {
        let advice = ContextAdvice::default();
        let error =
            crate::error::Error::Invalid { message: String::new(), param: None, code: Some("context_length_exceeded") };
        let exchange = Exchange {
            key: 0,
            id: "",
            method: &Method::GET,
            route: "",
            endpoint: "",
            peer: None,
            caller: None,
            model: None,
            status: None,
            first_byte: None,
            first_token: None,
            total: Duration::ZERO,
            waiting_for: None,
            usage: None,
            tokens_per_second: None,
            receipt: &crate::receipt::Receipt::default(),
            error: None,
            ending: Ending::Refused,
            secrets: &[],
            capture: None,
            now: Instant::now(),
            clock: std::time::SystemTime::UNIX_EPOCH,
            facts: None,
            trace: None,
        };
        advice.read(&exchange);
        assert!(advice.wants(), "nothing was too long");
        advice.read(&Exchange { error: Some(&error), ..exchange });
        assert!(!advice.wants());
    }
}
