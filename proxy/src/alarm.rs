//! Deadlines that move with every request and are hardly ever reached. Moving one costs nothing: the timer behind it stays where it is, and
//! is set anew only when it goes off too early. (A timer that is set and taken back for each request wakes the runtime's driver each time.)

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use hyper::rt;
use tokio::time::{Instant, Sleep};

/// The timer of a deadline that the caller knows.
#[derive(Debug, Default)]
pub(crate) struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Ready once `due` is reached; else `cx` is woken then, or earlier.
    pub(crate) fn poll(&mut self, due: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        if timer.deadline() > due {
            timer.as_mut().reset(due);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= due {
                return Poll::Ready(());
            }
            timer.as_mut().reset(due);
        }
        Poll::Pending
    }
}

/// hyper's deadlines.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Alarms;

struct Until {
    due: Instant,
    alarm: Alarm,
}

impl Future for Until {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let due = self.due;
        self.alarm.poll(due, cx)
    }
}

impl rt::Sleep for Until {}

impl rt::Timer for Alarms {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn rt::Sleep>> {
        Box::pin(Until { due: Instant::now() + duration, alarm: Alarm::default() })
    }

    fn sleep_until(&self, deadline: std::time::Instant) -> Pin<Box<dyn rt::Sleep>> {
        Box::pin(Until { due: deadline.into(), alarm: Alarm::default() })
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn rt::Sleep>>, deadline: std::time::Instant) {
        match sleep.as_mut().downcast_mut_pin::<Until>() {
            Some(mut until) => until.due = deadline.into(),
            None => *sleep = self.sleep_until(deadline),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_moves_is_reached_when_it_stands_still() {
        let begun = Instant::now();
        let (mut alarm, mut due) = (Alarm::default(), begun + Duration::from_secs(5));
        let mut polls = 0;
        poll_fn(|cx| {
            polls += 1;
            // Something happens, and the deadline moves on, three times.
            if polls <= 3 {
                due += Duration::from_secs(5);
            }
            alarm.poll(due, cx)
        })
        .await;
        assert_eq!(begun.elapsed().as_secs(), 20);
        let nearer = Instant::now() + Duration::from_secs(1);
        let mut alarm = Alarm::default();
        let far = poll_fn(|cx| Poll::Ready(alarm.poll(nearer + Duration::from_secs(60), cx))).await;
        assert!(far.is_pending());
        poll_fn(|cx| alarm.poll(nearer, cx)).await;
        assert_eq!(begun.elapsed().as_secs(), 21);
    }

    #[tokio::test(start_paused = true)]
    async fn hypers_deadlines_move_too() {
        use rt::Timer;
        let begun = Instant::now();
        let mut sleep = Alarms.sleep(Duration::from_secs(5));
        Alarms.reset(&mut sleep, (begun + Duration::from_secs(9)).into());
        sleep.await;
        assert_eq!(begun.elapsed().as_secs(), 9);
    }
}
