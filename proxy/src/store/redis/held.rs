//! Which records a process works on now: a lease for each, by `held.lua`.

use std::time::Duration;

use super::{Redis, Unreachable, milliseconds};
use crate::store::Kind;

impl Redis {
    /// How long a lease lasts.
    pub(in crate::store) fn lease(&self) -> Duration {
        self.settings.lease
    }

    async fn lease_of(&self, what: &'static str, kind: Kind, id: &str) -> Result<bool, Unreachable> {
        self.may_try()?;
        let call = |_| async move {
            let mut invocation = self.held_script.prepare_invoke();
            invocation.key(self.key(format_args!("{}:held:{id}", kind.name())));
            invocation.arg(what).arg(milliseconds(self.settings.lease));
            invocation.invoke_async::<i64>(&mut self.connection()).await
        };
        Ok(self.call(call, true).await? == 1)
    }

    /// Works on a record for another lease. Returns whether another process asks this one to end.
    pub(in crate::store) async fn hold(&self, kind: Kind, id: &str) -> Result<bool, Unreachable> {
        self.lease_of("hold", kind, id).await
    }

    /// Whether a process works on a record.
    pub(in crate::store) async fn is_held(&self, kind: Kind, id: &str) -> Result<bool, Unreachable> {
        self.lease_of("held", kind, id).await
    }

    /// Asks the process that works on a record to end. Returns whether there is one.
    pub(in crate::store) async fn ask_to_end(&self, kind: Kind, id: &str) -> Result<bool, Unreachable> {
        self.lease_of("end", kind, id).await
    }

    /// Ends the work on a record.
    pub(in crate::store) async fn release(&self, kind: Kind, id: &str) -> Result<(), Unreachable> {
        self.lease_of("release", kind, id).await.map(|_| ())
    }
}
