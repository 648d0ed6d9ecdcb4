use std::rc::Rc;

use candle_core::Result;

use super::*;

struct Counted(Rc<()>);

impl Decoder for Counted {
    fn forward(&mut self, _: &[u32], _: usize) -> Result<Vec<f32>> {
        Ok(Vec::new())
    }

    fn fork(&self) -> Box<dyn Decoder> {
        Box::new(Self(Rc::clone(&self.0)))
    }
}

fn found(cache: &mut PrefixCache, prompt: &[u32]) -> Option<usize> {
    cache.find(prompt).map(|(_, length)| length)
}

#[test]
fn the_longest_equal_beginning_is_found() {
    let mut cache = PrefixCache::new(1, 1000);
    let decoder = Counted(Rc::new(()));
    cache.keep(&[1, 2], &decoder);
    cache.keep(&[1, 2, 3, 4], &decoder);
    cache.keep(&[1, 9, 3, 4, 5], &decoder);
    assert_eq!(found(&mut cache, &[1, 2, 3, 4, 5]), Some(4));
    assert_eq!(found(&mut cache, &[1, 2, 3, 4]), Some(2), "the last token is always read for its logits");
    assert_eq!(found(&mut cache, &[1, 2, 3, 5, 4]), Some(2), "one different token spoils the longer one");
    assert_eq!(found(&mut cache, &[1]), None);
    assert_eq!(found(&mut cache, &[2, 2, 3]), None);
    assert!(cache.holds(&[1, 2]) && !cache.holds(&[1, 2, 3]));
}

#[test]
fn the_least_used_goes_first_and_bytes_are_bounded() {
    let alive = Rc::new(());
    let mut cache = PrefixCache::new(10, 100);
    let decoder = Counted(Rc::clone(&alive));
    cache.keep(&[1; 4], &decoder);
    cache.keep(&[2; 4], &decoder);
    assert_eq!(found(&mut cache, &[1; 5]), Some(4));
    cache.keep(&[3; 4], &decoder);
    assert_eq!(found(&mut cache, &[2; 5]), None, "the least recently used went");
    assert_eq!(found(&mut cache, &[1; 5]), Some(4));
    cache.keep(&[4; 11], &decoder);
    assert_eq!(found(&mut cache, &[4; 12]), None, "what is larger than the bound is not kept");
    cache.keep(&[3; 4], &decoder);
    // Two snapshots, the decoder of this test and `alive` itself.
    assert_eq!(Rc::strong_count(&alive), 4);
    for token in 0..1000 {
        cache.keep(&[token], &decoder);
    }
    assert_eq!(Rc::strong_count(&alive), 2 + 10);
}
