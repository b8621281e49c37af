//! What happens when more requests wait for upstream than may (`listen.max_pending_requests`).

use std::time::Duration;

use http::Method;
use tokio::time::sleep;

use crate::support::corridor::{ALICE, House, PROJECTS, is_hit};
use crate::support::scripted::Act;

const SECOND: Duration = Duration::from_secs(1);
const SLOW: &str = "/api/0/organizations/acme/teams/";
const OTHER: &str = "/api/0/organizations/acme/members/";

/// A house in which one request may wait, and does; [`PROJECTS`] has been stored for so long.
async fn full(age: Duration) -> House {
    let house = House::without_limits(|config| config.listen.max_pending_requests = 1).await;
    house.upstream.plays(PROJECTS, Act::json("[1]"));
    house.get(PROJECTS).await;
    sleep(age).await;
    house.upstream.plays(SLOW, Act::json("[2]").after(8 * SECOND));
    house.upstream.plays(OTHER, Act::json("[3]"));
    house.crowd(1, SLOW, &[("authorization", ALICE)]).detach_all();
    sleep(SECOND).await;
    house
}

#[tokio::test(start_paused = true)]
async fn hits_are_served_and_the_rest_is_told_to_come_again() {
    let house = full(SECOND).await;
    assert!(is_hit(&house.get(PROJECTS).await));
    let asked = house.upstream.count();
    for (method, target) in
        [(Method::GET, OTHER), (Method::GET, SLOW), (Method::PUT, OTHER), (Method::GET, "/api/0/users/me/")]
    {
        let refused = house.ask(method.clone(), target, &[("authorization", ALICE)]).await;
        assert_eq!(refused.status.as_u16(), 503, "{method} {target} {refused:?}");
        assert_eq!(refused.field("retry-after"), "1");
        assert!(refused.field("cache-status").contains("overloaded"), "{refused:?}");
        assert!(refused.text().contains("listen.max_pending_requests"), "{refused:?}");
    }
    assert_eq!(house.upstream.count(), asked, "nothing of it was sent");
    sleep(10 * SECOND).await;
    assert_eq!(house.get(OTHER).await.status.as_u16(), 200);
}

#[tokio::test(start_paused = true)]
async fn something_stale_is_better_than_nothing_where_it_is_allowed() {
    // Past its lifetime and the window in which it is refreshed behind the client's back.
    let house = full(Duration::from_hours(1)).await;
    let stale = house.get(PROJECTS).await;
    assert_eq!((stale.status.as_u16(), stale.text()), (200, "[1]"));
    assert!(stale.field("cache-status").contains("stale-if-error"), "{stale:?}");
}
