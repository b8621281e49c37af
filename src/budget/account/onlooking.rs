//! What those who look on see of one caller's limits. Pure.
//!
//! Invariant: looking changes nothing. Not here: what follows from the limits (`budget::account`).

use std::time::{Duration, SystemTime};

use crate::budget::account::{Account, SharedLimit};
use crate::budget::gate::Gate;
use crate::budget::limit_fields::LimitFields;
use crate::budget::meter::Meter;
use crate::budget::observation::Moment;
use crate::budget::route_state::{RouteLimit, RouteState};
use crate::handling::hold::Hold;
use crate::metrics::budget_levels::ClosedGates;
use crate::pressure::Pressure;
use crate::routes::RouteLabel;

/// How short a limit is; what is closed is shorter than what is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shortage {
    is_closed: bool,
    pressure: Pressure,
}

/// A limit, and the routes that count against it.
#[derive(Debug)]
pub struct KnownLimit {
    /// The routes.
    pub routes: Vec<RouteLabel>,
    /// What is allowed, and left.
    pub fields: LimitFields,
    /// For how long it is closed, and by what.
    pub closed: Option<(Duration, Hold)>,
}

impl Account {
    /// Returns how many gates let nothing pass at `now`; whether upstream's does, is not told here.
    pub fn closed(&self, now: SystemTime) -> ClosedGates {
        ClosedGates {
            limits: self.limits.iter().filter(|limit| !limit.meter.is_free(now)).count(),
            routes: self.routes.values().filter(|state| !state.gate.is_free(now)).count(),
            upstreams: 0,
        }
    }

    /// Returns the gate of the limit that a route counts against, where that is known, and its own.
    pub fn gates(&self, route: &RouteLabel) -> [Gate; 2] {
        let own = self.routes.get(route).map(|state| state.gate);
        [self.meter_of(route).map(Meter::gate).unwrap_or_default(), own.unwrap_or_default()]
    }

    /// Calls `note` with each route whose limit is known, and what is left of that.
    pub fn remaining<'a>(&'a self, moment: &Moment, mut note: impl FnMut(&'a RouteLabel, f64)) {
        let left = |limit: &SharedLimit| limit.meter.present(moment).and_then(|fields| fields.share_left());
        let left: Vec<Option<f64>> = self.limits.iter().map(left).collect();
        for (route, state) in &self.routes {
            if let RouteLimit::Of(index) = state.limit
                && let Some(Some(share)) = left.get(index)
            {
                note(route, *share);
            }
        }
    }

    /// Returns how short each known limit is at this moment, by its number.
    pub fn shortages(&self, moment: &Moment) -> impl Iterator<Item = (usize, Shortage)> {
        let is_known = |limit: &SharedLimit| limit.meter.present(moment).is_some();
        let limits = self.limits.iter().enumerate().filter(move |(_, limit)| is_known(limit));
        limits.map(|(number, SharedLimit { meter, .. })| {
            (number, Shortage { is_closed: !meter.is_free(moment.now), pressure: meter.pressure(moment) })
        })
    }

    /// Returns the limit of this number as it is at this moment, and the routes that count against it.
    pub fn known_limit(&self, number: usize, moment: &Moment) -> Option<KnownLimit> {
        let meter = &self.limits.get(number)?.meter;
        let fields = meter.present(moment)?;
        let is_here = |state: &RouteState| matches!(state.limit, RouteLimit::Of(of) if of == number);
        let routes = self.routes.iter().filter(|(_, state)| is_here(state)).map(|(route, _)| route.clone());
        let mut routes: Vec<RouteLabel> = routes.collect();
        routes.sort_unstable();
        Some(KnownLimit { routes, fields, closed: meter.closed(moment.now) })
    }
}
