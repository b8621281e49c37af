//! Says where an answer comes from: when its forward took off, and what it is about.
//!
//! Invariant: what an answer carries is told by its request and its status, so that whoever comes after a write is told from
//! whoever came before it. Not here: what a path is about (`routes::tags`), what happened to it (`cache::generations`).

use std::time::SystemTime;

use http::StatusCode;

use crate::admission::AdmittedRequest;
use crate::cache::generations::Stamp;
use crate::cache::stored_response::Provenance;
use crate::proxy::Proxy;
use crate::routes::place::Place;
use crate::routes::spelling::normalized_path;
use crate::routes::tags::{self, Tag};

/// The moment of taking off.
#[derive(Debug, Clone, Copy)]
pub struct TakeOff {
    /// As the generations know it.
    pub stamp: Stamp,
    /// As the clock says.
    pub at: SystemTime,
}

impl Proxy {
    /// Returns the present moment, for a forward that takes off.
    pub fn take_off(&self) -> TakeOff {
        let at = self.clock().now();
        TakeOff { stamp: self.generations().stamp(at), at }
    }

    /// Returns where an answer of this status to a forward comes from, now that it is there.
    pub fn provenance(&self, request: &AdmittedRequest, status: StatusCode, take_off: TakeOff) -> Provenance {
        let mut carried = self.tags_of(request);
        if is_absence(status) {
            carried.push(Tag::Absent);
        }
        Provenance {
            request_time: take_off.at,
            response_time: self.clock().now(),
            slots: self.generations().slots(&carried),
            stamp: take_off.stamp,
            route: request.route().label.clone(),
        }
    }

    /// Returns the generation that a reader who makes this request now belongs to, by the tags that its answer carries whatever
    /// it says.
    pub fn generation_of(&self, request: &AdmittedRequest) -> Stamp {
        self.generation(&self.tags_of(request))
    }

    /// Returns the latest moment at which something may have been made that was not there.
    pub fn latest_making(&self) -> Stamp {
        self.generation(&[Tag::Absent])
    }

    fn generation(&self, tags: &[Tag]) -> Stamp {
        self.generations().generation(&self.generations().slots(tags))
    }

    /// Returns the names that the organization of a normalized path has besides the one in it, as far as they were learned.
    pub fn further_names(&self, path: &str) -> Vec<String> {
        let name = Place::of(path).organization();
        name.map(|name| self.regions().organizations().names_of(name)).unwrap_or_default()
    }

    fn tags_of(&self, request: &AdmittedRequest) -> Vec<Tag> {
        let path = normalized_path(request.path());
        let mut carried = tags::carried_by(&path, &self.further_names(&path));
        carried.push(Tag::Route(request.route().label.as_str().to_owned()));
        carried.push(Tag::Credential(self.fingerprint_of(request)));
        carried.push(Tag::Seen(*request.partition().as_bytes(), path));
        carried
    }
}

/// Returns whether an answer of this status says that there is nothing.
pub fn is_absence(status: StatusCode) -> bool {
    matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE)
}
