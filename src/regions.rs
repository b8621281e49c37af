//! Decides which upstream a request goes to, and which hosts count as Sentry's.
//!
//! *Pinned*: to the one configured region, but for what only the control host serves. *By organization*: what names an
//! organization goes to the region where that lives, as far as that is known; the list of organizations and what is not known
//! go to the control host, which has them all and finds each by itself (`sentry-api.md` §6). [`Regions::direct`] decides, and the
//! [`DirectedRequest`] carries it: key, budget, target and invalidation all read it there. Where an answer shows that it was
//! the wrong one, [`Regions::doubt`] directs the request anew.
//!
//! Invariants: a request goes to a configured URL and nowhere else, whatever a body, a token or a field says
//! ([`allow_list`]); what a token says steers nobody else's requests, nor an unproven one a write ([`hints`]); a region's URL
//! in a body is rewritten only when a request for that region through us would reach it.
//! Not here: what is learned when (`proxy::directions`), the rewriting itself (`links`), sending (`upstream`).

use std::ops::Deref;
use std::sync::Arc;
use std::time::SystemTime;

use http::Method;
use http::uri::Uri;

use crate::admission::{AdmittedRequest, BodyFraming};
use crate::config::control::{GLOBAL, control_url, is_sentrys_own};
use crate::config::{Routing, UpstreamConfig};
use crate::handling::bearing::Bearing;
use crate::links::KnownHosts;
use crate::organizations::{Organizations, RegionId};
use crate::regions::allow_list::{AllowList, BadOrigin, Origin};
use crate::regions::hints::{Hints, Worth};
use crate::routes::place::Place;
use crate::routes::silo::{Silo, silo_of};
use crate::routes::spelling::normalized_path;
use crate::traces::Trace;

pub mod allow_list;
pub mod hints;

/// The upstreams, fixed by the configuration, and what was learned of who lives where.
#[derive(Debug)]
pub struct Regions {
    routing: Routing,
    allowed: AllowList,
    chosen: Listed,
    control: Option<Listed>,
    /// The regions that a request through us reaches.
    reachable: Vec<RegionId>,
    /// Further authorities under which the chosen upstream speaks of itself.
    aliases: Vec<String>,
    known_hosts: KnownHosts,
    organizations: Organizations,
    hints: Hints,
}

/// An upstream, and where it stands in the list of those that are allowed.
#[derive(Debug, Clone)]
struct Listed {
    id: RegionId,
    origin: Origin,
}

/// An admitted request, and the upstream that it goes to.
#[derive(Debug, Clone)]
pub struct DirectedRequest {
    request: Arc<AdmittedRequest>,
    upstream: Origin,
    bearing: Bearing,
    trace: Trace,
}

impl Deref for DirectedRequest {
    type Target = AdmittedRequest;

    fn deref(&self) -> &AdmittedRequest {
        &self.request
    }
}

impl DirectedRequest {
    /// Returns the upstream.
    pub fn upstream(&self) -> &Origin {
        &self.upstream
    }

    /// Returns why it goes there.
    pub fn bearing(&self) -> Bearing {
        self.bearing
    }

    /// Returns the place in a trace where it is worked for.
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// Returns the same request, worked for at this place in a trace.
    #[must_use]
    pub fn traced(self, trace: Trace) -> Self {
        Self { trace, ..self }
    }

    /// Returns the request alone, to direct it anew.
    pub fn admitted(&self) -> Arc<AdmittedRequest> {
        Arc::clone(&self.request)
    }

    /// Returns the upstream's URL of the request: the client's own path and query, to the byte.
    pub fn target(&self) -> Option<Uri> {
        let mut target = self.path().to_owned();
        if let Some(query) = self.query() {
            target.push('?');
            target.push_str(query);
        }
        Uri::builder()
            .scheme(self.upstream.scheme.clone())
            .authority(self.upstream.authority.clone())
            .path_and_query(target)
            .build()
            .ok()
    }
}

impl Regions {
    /// Reads the upstreams of a configuration.
    ///
    /// # Errors
    /// Names the key whose URL is none.
    pub fn new(config: &UpstreamConfig) -> Result<Self, BadOrigin> {
        let mut allowed = AllowList::default();
        let named =
            config.regions.get(&config.region).map(|url| region_origin(&config.region, url)).transpose()?;
        // `upstream.url` says where the region is reached; it stays the same region.
        let chosen = match (config.url.as_str(), &named) {
            ("", Some(origin)) => origin.clone(),
            ("", None) => return Err(BadOrigin { key: "upstream.region".to_owned() }),
            (url, _) => Origin::parse("upstream.url", url)?,
        };
        let chosen = Listed { id: allowed.add(&chosen), origin: chosen };
        if let Some(named) = &named {
            allowed.alias(named, chosen.id);
        }
        for (name, url) in &config.regions {
            allowed.add(&region_origin(name, url)?);
        }
        let control = control_url(config).map(|url| Origin::parse("upstream.control", url)).transpose()?;
        let control = control.map(|origin| Listed { id: allowed.add(&origin), origin });
        let reaches_all = config.region == GLOBAL || config.routing == Routing::ByOrganization;
        let reachable = if reaches_all { allowed.places().collect() } else { vec![chosen.id] };
        let authorities = allowed.places().filter_map(|place| allowed.origin(place));
        let authorities = authorities.chain(&named).map(|origin| origin.authority().to_owned());
        let known_hosts = KnownHosts::new(authorities.chain(config.link_hosts.iter().cloned()));
        Ok(Self {
            routing: config.routing,
            chosen,
            control,
            reachable,
            aliases: config.link_hosts.clone(),
            known_hosts,
            allowed,
            organizations: Organizations::default(),
            hints: Hints::default(),
        })
    }

    /// Decides where a request goes, by what is known at `now`.
    pub fn direct(&self, request: Arc<AdmittedRequest>, now: SystemTime) -> DirectedRequest {
        let (upstream, bearing) = self.upstream_of(&request, now);
        DirectedRequest { upstream: upstream.clone(), bearing, request, trace: Trace::default() }
    }

    /// Directs a request to the control host that was to go elsewhere, because that does not know what it names; `None`
    /// where there is no control host, or it went there.
    pub fn doubt(&self, request: &DirectedRequest) -> Option<DirectedRequest> {
        let control = self.control.as_ref().filter(|control| control.origin != request.upstream)?;
        let (upstream, bearing) = (control.origin.clone(), Bearing::Doubted);
        let trace = request.trace.clone();
        Some(DirectedRequest { upstream, bearing, request: request.admitted(), trace })
    }

    fn upstream_of(&self, request: &AdmittedRequest, now: SystemTime) -> (&Origin, Bearing) {
        let Some(control) = &self.control else { return (&self.chosen.origin, Bearing::Pinned) };
        let path = request.path();
        if silo_of(path) == Silo::Control {
            return (&control.origin, Bearing::Control);
        }
        if self.routing == Routing::Pinned {
            return (&self.chosen.origin, Bearing::Pinned);
        }
        match Place::of(&normalized_path(path)) {
            Place::List => (&control.origin, Bearing::Control),
            Place::Organization { name, .. } => {
                self.home_of(request, name, now).unwrap_or((&control.origin, Bearing::Unknown))
            }
            Place::Unknown { .. } | Place::Apart => (&self.chosen.origin, Bearing::Unnamed),
        }
    }

    /// Returns where the organization lives that a request names, as far as that is known.
    fn home_of(&self, request: &AdmittedRequest, name: &str, now: SystemTime) -> Option<(&Origin, Bearing)> {
        if let Some(region) = self.organizations.region_of(name) {
            return Some((self.allowed.origin(region)?, Bearing::Learned));
        }
        let claim = request.credential()?.claim().filter(|claim| claim.organization == name)?;
        let claimed = self.allowed.origin(self.allowed(&claim.region_url)?)?;
        let is_plain_read = *request.method() == Method::GET && request.body() == BodyFraming::Absent;
        match self.hints.worth(request.partition(), now) {
            Worth::Proven => Some((claimed, Bearing::Proven)),
            Worth::Untried if is_plain_read => Some((claimed, Bearing::Hinted)),
            Worth::Untried | Worth::Refuted => None,
        }
    }

    /// Returns how requests are routed.
    pub fn routing(&self) -> Routing {
        self.routing
    }

    /// Returns the place of a URL's origin among those that requests may be sent to; `None` for every other one.
    pub fn allowed(&self, url: &str) -> Option<RegionId> {
        self.allowed.find(url).filter(|place| self.may_lead_to(*place))
    }

    /// Returns whether what Sentry or a token says may lead to an origin. The regions that stand in the configuration from the
    /// start are Sentry's own: nothing that a deployment of one's own says leads there.
    fn may_lead_to(&self, place: RegionId) -> bool {
        let is_sentrys = |origin: &Origin| is_sentrys_own(&format!("https://{}", origin.authority()));
        is_sentrys(&self.chosen.origin)
            || self.allowed.origin(place).is_some_and(|origin| !is_sentrys(origin))
    }

    /// Returns whether a URL's host is one under which an upstream may speak of itself; and, where that says where requests
    /// go, one that it may lead to.
    pub fn is_known(&self, url: &str) -> bool {
        self.found(url).is_some() || self.is_alias(url)
    }

    fn found(&self, url: &str) -> Option<RegionId> {
        match self.routing {
            Routing::Pinned => self.allowed.find(url),
            Routing::ByOrganization => self.allowed(url),
        }
    }

    /// Returns what was learned of organizations.
    pub fn organizations(&self) -> &Organizations {
        &self.organizations
    }

    /// Returns what came of taking tokens at their word.
    pub fn hints(&self) -> &Hints {
        &self.hints
    }

    /// Returns the hosts that count as Sentry's in `Link` and `Location`.
    pub fn known_hosts(&self) -> &KnownHosts {
        &self.known_hosts
    }

    /// Returns whether a request for the region of this URL, sent through us, would reach it.
    pub fn reaches(&self, url: &str) -> bool {
        self.found(url).is_some_and(|place| self.reachable.contains(&place)) || self.is_alias(url)
    }

    fn is_alias(&self, url: &str) -> bool {
        let Ok(uri) = url.parse::<Uri>() else { return false };
        let (Some(_), Some(authority)) = (uri.scheme(), uri.authority()) else { return false };
        self.aliases.iter().any(|alias| alias.eq_ignore_ascii_case(authority.as_str()))
    }
}

fn region_origin(name: &str, url: &str) -> Result<Origin, BadOrigin> {
    Origin::parse(&format!("upstream.regions.{name}"), url)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::testing::{TOKEN, admission, asked, head, start};

    fn regions(region: &str, url: &str) -> Regions {
        let mut config: UpstreamConfig = crate::config::load::defaults().upstream;
        config.region = region.to_owned();
        config.url = url.to_owned();
        config.regions = BTreeMap::from(
            [("global", "https://sentry.io"), ("us", "https://us.sentry.io"), ("de", "https://de.sentry.io")]
                .map(|(name, url)| (name.to_owned(), url.to_owned())),
        );
        Regions::new(&config).unwrap()
    }

    #[test]
    fn a_pinned_region_reaches_only_itself() {
        let regions = regions("us", "");
        assert!(regions.reaches("https://us.sentry.io"));
        assert!(!regions.reaches("http://us.sentry.io"));
        assert!(!regions.reaches("https://de.sentry.io"));
        assert!(!regions.reaches("https://evil.example"));
    }

    #[test]
    fn the_gateway_reaches_every_configured_region() {
        let regions = regions("global", "");
        assert!(regions.reaches("https://us.sentry.io"));
        assert!(regions.reaches("https://de.sentry.io/"));
        assert!(!regions.reaches("https://fr.sentry.io"));
    }

    #[test]
    fn an_upstream_url_moves_the_region_and_leaves_it_the_same_region() {
        let regions = regions("us", "http://127.0.0.1:8080/");
        assert_eq!(regions.chosen.origin.authority(), "127.0.0.1:8080");
        assert!(regions.reaches("https://us.sentry.io"));
        assert!(regions.reaches("http://127.0.0.1:8080"));
        assert!(!regions.reaches("https://de.sentry.io"));
    }

    fn target(line: &str, url: &str) -> String {
        let request = Arc::new(crate::testing::asked(line, &[]));
        regions("us", url).direct(request, start()).target().unwrap().to_string()
    }

    #[test]
    fn a_target_is_the_clients_own_spelling_to_the_byte() {
        for path in [
            "/api/0/organizations/",
            "/api/0/organizations/acme/releases/web%2F1.0+2@x/?&cursor=0%3a100:0&a=%20b+c&a",
            "/api/0/organizations/acme/issues/?query=is%3Aunresolved&query=",
            "/api/0/organizations/acme/issues/?",
        ] {
            let expected = format!("https://us.sentry.io{path}");
            assert_eq!(target(&format!("GET {path}"), ""), expected);
        }
    }

    #[test]
    fn a_target_is_upstreams_whatever_authority_the_client_named() {
        let line = "GET http://evil.example/api/0/organizations/";
        assert_eq!(target(line, ""), "https://us.sentry.io/api/0/organizations/");
        assert_eq!(target(line, "http://127.0.0.1:8080/"), "http://127.0.0.1:8080/api/0/organizations/");
    }

    #[test]
    fn the_hosts_of_all_regions_and_the_configured_ones_are_known() {
        let mut config = crate::config::load::defaults().upstream;
        config.url = "http://127.0.0.1:8080".to_owned();
        config.link_hosts = vec!["sentry.corp.example".to_owned()];
        let regions = Regions::new(&config).unwrap();
        let known = |host: &str| {
            let link =
                http::HeaderValue::from_str(&format!("<http://{host}/api/0/x/>; rel=\"next\"")).unwrap();
            crate::links::rewrite_link(&link, "http://proxy.example", regions.known_hosts()).is_some()
        };
        for host in ["sentry.io", "us.sentry.io", "de.sentry.io", "127.0.0.1:8080", "sentry.corp.example"] {
            assert!(known(host), "{host}");
        }
        for host in ["evil.example", "127.0.0.1:8081", "evil-sentry.io", "sentry.io.evil.example"] {
            assert!(!known(host), "{host}");
        }
    }

    #[test]
    fn an_alias_of_the_chosen_upstream_is_reached() {
        let mut config = crate::config::load::defaults().upstream;
        config.region = "us".to_owned();
        config.link_hosts = vec!["Sentry.corp.example".to_owned()];
        let regions = Regions::new(&config).unwrap();
        assert!(regions.reaches("https://sentry.CORP.example"));
        assert!(regions.reaches("HTTPS://US.sentry.io"));
        for url in ["us.sentry.io", "/api/0/", "", "https://", "https://us.sentry.io:8443", "nonsense:"] {
            assert!(!regions.reaches(url), "{url}");
        }
    }

    #[test]
    fn a_url_that_is_none_is_reported_by_its_key() {
        let check = |region: &str, url: &str, us: &str, key: &str| {
            let mut config = crate::config::load::defaults().upstream;
            config.region = region.to_owned();
            config.url = url.to_owned();
            config.regions.insert("us".to_owned(), us.to_owned());
            let error = Regions::new(&config).unwrap_err().to_string();
            assert_eq!(error, format!("could not read {key} as a URL of scheme and authority"));
        };
        check("us", "", "us.sentry.io", "upstream.regions.us");
        check("us", "/nowhere", "https://us.sentry.io", "upstream.url");
        check("mars", "", "https://us.sentry.io", "upstream.region");
    }

    /// Regions with routing by organization, the one region being the gateway or `region`.
    fn by_organization(region: &str) -> Regions {
        let mut config = crate::config::load::defaults().upstream;
        config.routing = Routing::ByOrganization;
        region.clone_into(&mut config.region);
        Regions::new(&config).unwrap()
    }

    /// Returns where a request goes, and why.
    fn course(regions: &Regions, line: &str, token: (&str, &str)) -> (String, Bearing) {
        let directed = regions.direct(Arc::new(asked(line, &[token])), start());
        (directed.upstream().authority().to_owned(), directed.bearing())
    }

    #[track_caller]
    fn check(regions: &Regions, line: &str, upstream: &str, bearing: Bearing) {
        assert_eq!(course(regions, line, TOKEN), (upstream.to_owned(), bearing), "{line}");
    }

    const DETAIL: &str = "GET /api/0/organizations/acme/";

    #[test]
    fn pinned_to_a_region_what_only_the_control_host_serves_goes_there() {
        let regions = regions("us", "");
        for line in [
            "GET /api/0/users/me/regions/",
            "GET /api/0/organizations/acme/integrations/",
            "PUT /api/0/auth/",
        ] {
            check(&regions, line, "sentry.io", Bearing::Control);
        }
        for line in
            [DETAIL, "GET /api/0/organizations/", "PUT /api/0/projects/acme/web/", "GET /api/0/issues/1/"]
        {
            check(&regions, line, "us.sentry.io", Bearing::Pinned);
        }
    }

    #[test]
    fn without_a_control_host_everything_goes_to_the_one_upstream() {
        let regions = regions("us", "http://127.0.0.1:8080");
        for line in [DETAIL, "GET /api/0/users/me/", "GET /api/0/organizations/acme/integrations/"] {
            check(&regions, line, "127.0.0.1:8080", Bearing::Pinned);
        }
    }

    #[test]
    fn a_control_host_can_be_named_for_any_upstream() {
        let mut config = crate::config::load::defaults().upstream;
        config.url = "http://127.0.0.1:8080".to_owned();
        config.control = "http://127.0.0.1:8081".to_owned();
        let regions = Regions::new(&config).unwrap();
        check(&regions, "GET /api/0/users/me/", "127.0.0.1:8081", Bearing::Control);
        check(&regions, DETAIL, "127.0.0.1:8080", Bearing::Pinned);
        assert!(regions.known_hosts().is_known("127.0.0.1:8081"));
    }

    #[test]
    fn by_organization_everything_goes_where_its_organization_is_known_to_live() {
        for region in ["global", "us", "de"] {
            let regions = by_organization(region);
            let de = regions.allowed("https://de.sentry.io");
            regions.organizations().learn("7", "acme", de);
            for line in [
                DETAIL,
                "PUT /api/0/organizations/7/",
                "DELETE /api/0/projects/acme/web/",
                "GET /api/0/teams/acme/core/",
                "GET /api/0/%6frganizations/%61cme/issues/",
            ] {
                check(&regions, line, "de.sentry.io", Bearing::Learned);
            }
            check(&regions, "GET /api/0/organizations/acme/integrations/", "sentry.io", Bearing::Control);
            check(&regions, "GET /api/0/organizations/", "sentry.io", Bearing::Control);
            check(&regions, "GET /api/0/users/me/", "sentry.io", Bearing::Control);
            check(&regions, "GET /api/0/organizations/other/", "sentry.io", Bearing::Unknown);
        }
        check(&by_organization("de"), "GET /api/0/issues/1/", "de.sentry.io", Bearing::Unnamed);
        check(&by_organization("global"), "GET /api/0/projects/", "sentry.io", Bearing::Unnamed);
    }

    /// Returns an organization token that claims a region.
    fn claiming(region_url: &str) -> String {
        use base64::Engine as _;
        let claim = serde_json::json!({"iat": 1.5, "url": null, "region_url": region_url, "org": "acme"});
        format!(
            "Bearer sntrys_{}_secret",
            base64::engine::general_purpose::STANDARD.encode(claim.to_string())
        )
    }

    #[test]
    fn nothing_that_a_deployment_of_ones_own_says_leads_to_sentrys_regions() {
        let mut config = crate::config::load::defaults().upstream;
        config.routing = Routing::ByOrganization;
        config.url = "http://east.example".to_owned();
        config.control = "http://control.example".to_owned();
        config.regions.insert("east".to_owned(), "http://east.example".to_owned());
        config.regions.insert("west".to_owned(), "http://west.example".to_owned());
        let regions = Regions::new(&config).unwrap();
        for foreign in
            ["https://us.sentry.io", "https://de.sentry.io/", "https://sentry.io", "https://us2.sentry.io"]
        {
            // `upstream.url` stands for its own region's URL.
            let is_own = foreign == "https://sentry.io";
            assert_eq!(
                (regions.allowed(foreign).is_some(), regions.is_known(foreign)),
                (is_own, is_own),
                "{foreign}"
            );
            assert_eq!(regions.reaches(foreign), is_own, "{foreign}");
            let token = claiming(foreign);
            let request = asked("GET /api/0/organizations/acme/issues/", &[("authorization", &token)]);
            let directed = regions.direct(Arc::new(request), start());
            let expected = if is_own { "east.example" } else { "control.example" };
            assert_eq!(directed.upstream().authority(), expected, "{foreign}");
        }
        assert!(regions.allowed("http://west.example").is_some());
    }

    #[test]
    fn an_untried_token_steers_only_reads_of_its_own_organization() {
        let regions = by_organization("global");
        let token = claiming("https://de.sentry.io");
        let token = ("authorization", token.as_str());
        let hinted = ("de.sentry.io".to_owned(), Bearing::Hinted);
        let unknown = ("sentry.io".to_owned(), Bearing::Unknown);
        assert_eq!(course(&regions, DETAIL, token), hinted);
        assert_eq!(course(&regions, "GET /api/0/projects/acme/web/", token), hinted);
        for line in [
            "GET /api/0/organizations/other/",
            "PUT /api/0/organizations/acme/",
            "HEAD /api/0/organizations/acme/",
            "OPTIONS /api/0/organizations/acme/",
        ] {
            assert_eq!(course(&regions, line, token), unknown, "{line}");
        }
        let with_body = admission(&crate::config::load::defaults());
        let with_body = with_body
            .admit(head(DETAIL, &[token]), BodyFraming::Known(2), crate::testing::PEER, crate::testing::ID)
            .unwrap();
        assert_eq!(regions.direct(Arc::new(with_body), start()).bearing(), Bearing::Unknown);
        assert_eq!(course(&regions, DETAIL, TOKEN), unknown);
    }

    #[test]
    fn a_proven_token_steers_its_writes_and_a_refuted_one_nothing() {
        let regions = by_organization("global");
        let token = claiming("https://de.sentry.io");
        let token = ("authorization", token.as_str());
        let partition = asked(DETAIL, &[token]).partition();
        regions.hints().prove(partition);
        for line in [DETAIL, "PUT /api/0/organizations/acme/"] {
            assert_eq!(course(&regions, line, token), ("de.sentry.io".to_owned(), Bearing::Proven));
            assert_eq!(course(&regions, line, TOKEN).1, Bearing::Unknown, "it is nobody else's");
        }
        regions.hints().refute(partition, start());
        assert_eq!(course(&regions, DETAIL, token).1, Bearing::Unknown);
    }

    #[test]
    fn what_sentry_said_counts_more_than_what_a_token_says() {
        let regions = by_organization("global");
        regions.organizations().learn("7", "acme", regions.allowed("https://us.sentry.io"));
        let token = claiming("https://de.sentry.io");
        let expected = ("us.sentry.io".to_owned(), Bearing::Learned);
        assert_eq!(course(&regions, DETAIL, ("authorization", &token)), expected);
    }

    #[test]
    fn a_token_that_names_a_host_of_its_own_steers_nothing() {
        let regions = by_organization("us");
        for url in [
            "https://evil.example",
            "https://us.sentry.io@evil.example",
            "https://us.sentry.io.evil.example",
            "http://us.sentry.io",
            "https://us.sentry.io:8443",
            "",
        ] {
            let course = course(&regions, DETAIL, ("authorization", &claiming(url)));
            assert_eq!(course, ("sentry.io".to_owned(), Bearing::Unknown), "{url}");
        }
    }

    #[test]
    fn an_upstream_url_stands_for_its_region_in_bodies_too() {
        let mut config = crate::config::load::defaults().upstream;
        config.region = "us".to_owned();
        config.url = "http://127.0.0.1:8080".to_owned();
        config.control = "http://127.0.0.1:8081".to_owned();
        config.routing = Routing::ByOrganization;
        let regions = Regions::new(&config).unwrap();
        regions.organizations().learn("7", "acme", regions.allowed("https://us.sentry.io"));
        check(&regions, DETAIL, "127.0.0.1:8080", Bearing::Learned);
    }

    #[test]
    fn by_organization_every_configured_region_is_reached_and_no_other_one() {
        let regions = by_organization("us");
        for url in ["https://sentry.io", "https://us.sentry.io", "https://de.sentry.io/"] {
            assert!(regions.reaches(url) && regions.is_known(url), "{url}");
        }
        for url in ["https://fr.sentry.io", "https://us.sentry.io@evil.example", "http://de.sentry.io"] {
            assert!(!regions.reaches(url) && !regions.is_known(url), "{url}");
        }
    }

    proptest! {
        #[test]
        fn whatever_a_token_says_a_request_goes_to_a_configured_origin(
            said in "(https?://)?[a-z@:/.\\\\%#?-]{0,8}(us\\.sentry\\.io)?[a-z@:/.\\\\%#?-]{0,8}",
            path in "/api/0/(organizations|projects|teams|users)/(acme|%61cme|7)?/?[a-z%/]{0,6}",
        ) {
            let regions = by_organization("us");
            let admission = admission(&crate::config::load::defaults());
            let token = claiming(&said);
            let head = head(&format!("GET {path}"), &[("authorization", &token)]);
            let Ok(request) = admission.admit(head, BodyFraming::Absent, crate::testing::PEER, crate::testing::ID) else { return Ok(()) };
            let directed = regions.direct(Arc::new(request), start());
            let target = directed.target().unwrap().to_string();
            let origins = ["https://sentry.io", "https://us.sentry.io", "https://de.sentry.io"];
            prop_assert!(origins.iter().any(|origin| target == format!("{origin}{path}")), "{target}");
        }
    }
}
