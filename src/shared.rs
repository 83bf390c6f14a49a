//! What a thread of its own has in common with the rest of the process: the config it goes by, and a picture for status.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// A picture: the thread draws it, status looks at it.
#[derive(Debug, Default)]
pub struct Shared<P>(Arc<Mutex<P>>);

impl<P> Clone for Shared<P> {
    fn clone(&self) -> Shared<P> {
        Shared(Arc::clone(&self.0))
    }
}

impl<P: Clone> Shared<P> {
    /// The picture as last drawn.
    #[must_use]
    pub fn look(&self) -> P {
        self.lock().clone()
    }

    /// Changes the picture.
    pub fn draw(&self, change: impl FnOnce(&mut P)) {
        change(&mut self.lock());
    }

    fn lock(&self) -> MutexGuard<'_, P> {
        // Only for status: a panic elsewhere does not spoil it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end of the rest of the process.
#[derive(Debug)]
pub struct Handle<S, P> {
    settings: watch::Sender<S>,
    view: Shared<P>,
}

impl<S: PartialEq, P: Clone + Default> Handle<S, P> {
    /// A handle, and for the thread the settings to go by and the picture to draw.
    #[must_use]
    pub fn new(settings: S) -> (Handle<S, P>, watch::Receiver<S>, Shared<P>) {
        let (settings, goes_by) = watch::channel(settings);
        let view = Shared::default();
        (Handle { settings, view: view.clone() }, goes_by, view)
    }

    /// Takes up a new config.
    pub fn reconfigure(&self, settings: S) {
        self.settings.send_if_modified(|old| {
            let changed = *old != settings;
            *old = settings;
            changed
        });
    }

    /// A picture for status.
    #[must_use]
    pub fn look(&self) -> P {
        self.view.look()
    }
}
