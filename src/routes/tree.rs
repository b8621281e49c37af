//! Finds the first of many templates that fits a path, walking the path once.
//!
//! The templates share a tree with one level per segment; each level is asked for the literal, the patterns and
//! the rest. Every node is reached by one way only, so a look-up visits no node twice, however paths are spelled.
//!
//! Invariant: what is found is the smallest position of a template that fits, whatever the shape of the tree.
//! Not here: what a position means (`routes`).

use crate::routes::template::{Part, Segment, decoded, fits};

/// One level of the tree: the templates that agree on everything so far.
#[derive(Debug, Default)]
pub struct Node {
    /// Children by literal, sorted.
    literals: Vec<(String, Node)>,
    /// Children by pattern.
    patterns: Vec<(Vec<Part>, Node)>,
    /// Position of the first template that goes on with `{*rest}`.
    rest: Option<usize>,
    /// Position of the first template that ends here.
    end: Option<usize>,
}

impl Node {
    /// Adds a template under its position; positions are added in ascending order.
    pub fn insert(&mut self, segments: &[Segment], position: usize) {
        match segments.split_first() {
            None => _ = self.end.get_or_insert(position),
            Some((Segment::Rest, _)) => _ = self.rest.get_or_insert(position),
            Some((Segment::Literal(text), rest)) => self.literal_child(text).insert(rest, position),
            Some((Segment::Pattern(parts), rest)) => self.pattern_child(parts).insert(rest, position),
        }
    }

    fn literal_child(&mut self, text: &str) -> &mut Self {
        let place = self.literals.binary_search_by(|(literal, _)| literal.as_str().cmp(text));
        let index = match place {
            Ok(index) => index,
            Err(index) => {
                self.literals.insert(index, (text.to_owned(), Self::default()));
                index
            }
        };
        let (_, child) = self.literals.get_mut(index).expect("the index was found or just filled");
        child
    }

    fn pattern_child(&mut self, parts: &[Part]) -> &mut Self {
        let place = self.patterns.iter().position(|(pattern, _)| pattern == parts);
        let index = place.unwrap_or_else(|| {
            self.patterns.push((parts.to_vec(), Self::default()));
            self.patterns.len() - 1
        });
        let (_, child) = self.patterns.get_mut(index).expect("the index was found or just filled");
        child
    }

    /// Returns the position of the first template that fits what is left of a path; `None` if nothing is left,
    /// not even an empty segment.
    pub fn find(&self, left: Option<&str>) -> Option<usize> {
        let Some(left) = left else { return self.end };
        let (segment, left) =
            left.split_once('/').map_or((left, None), |(segment, left)| (segment, Some(left)));
        let by_literal = self.child_spelled(segment).and_then(|child| child.find(left));
        let by_pattern = self
            .patterns
            .iter()
            .filter(|(parts, _)| fits(parts, segment))
            .filter_map(|(_, child)| child.find(left))
            .min();
        [by_literal, by_pattern, self.rest].into_iter().flatten().min()
    }

    fn child_spelled(&self, segment: &str) -> Option<&Self> {
        let place = self.literals.binary_search_by(|(literal, _)| literal.bytes().cmp(decoded(segment)));
        place.ok().and_then(|index| self.literals.get(index)).map(|(_, child)| child)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::routes::template::Template;

    fn tree(routes: &[&str]) -> Node {
        let mut root = Node::default();
        for (position, route) in routes.iter().enumerate() {
            root.insert(Template::parse(route).unwrap().segments(), position);
        }
        root
    }

    #[track_caller]
    fn check(routes: &[&str], path: &str, expected: Option<&str>) {
        let found = tree(routes).find(path.strip_prefix('/')).map(|position| routes[position]);
        assert_eq!(found, expected, "{path}");
    }

    #[test]
    fn the_first_template_wins_over_a_closer_one() {
        check(&["/{a}/", "/x/"], "/x/", Some("/{a}/"));
        check(&["/x/", "/{a}/"], "/x/", Some("/x/"));
        check(&["/{*a}", "/x/y/"], "/x/y/", Some("/{*a}"));
    }

    #[test]
    fn a_dead_end_does_not_hide_another_way() {
        check(&["/x/y/", "/{a}/z/"], "/x/z/", Some("/{a}/z/"));
        check(&["/{a}:{b}/y/", "/{a}/z/"], "/p:q/z/", Some("/{a}/z/"));
        check(&["/x/y/", "/{*rest}"], "/x/z/", Some("/{*rest}"));
    }

    #[test]
    fn the_rest_may_be_empty_but_not_its_slash() {
        check(&["/a/{*rest}"], "/a/", Some("/a/{*rest}"));
        check(&["/a/{*rest}"], "/a/b/c", Some("/a/{*rest}"));
        check(&["/a/{*rest}"], "/a", None);
    }

    #[test]
    fn slashes_at_the_end_count() {
        check(&["/a/", "/b"], "/a", None);
        check(&["/a/", "/b"], "/b/", None);
        check(&["/a/", "/b"], "/b", Some("/b"));
        check(&["/{a}"], "/", None);
    }

    proptest! {
        #[test]
        fn the_tree_finds_what_trying_one_by_one_finds(
            routes in proptest::collection::vec("(/[ab]|/\\{x\\}|/a-\\{y\\}){1,3}/?", 1..8),
            path in "(/(a|b|a-b|)){1,4}",
        ) {
            let routes: Vec<_> = routes.iter().map(String::as_str).filter(|route| Template::parse(route).is_ok()).collect();
            let alone = routes.iter().position(|route| tree(&[route]).find(path.strip_prefix('/')).is_some());
            prop_assert_eq!(tree(&routes).find(path.strip_prefix('/')), alone);
        }
    }
}
