use super::*;

const GB: u64 = 1_000_000_000;

#[test]
fn precision_goes_before_positions_and_positions_before_voices() {
    let shown: Vec<String> = HiggsOptions::all(&HiggsConfig::published(), 3).iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "in full precision, 3 at once, 4096 positions each",
            "at 8 bits, 3 at once, 4096 positions each",
            "at 4 bits, 3 at once, 4096 positions each",
            "at 4 bits, 3 at once, 2048 positions each",
            "at 4 bits, 2 at once, 2048 positions each",
            "at 4 bits, 1 at once, 2048 positions each",
        ]
    );
    let one = HiggsOptions::all(&HiggsConfig::published(), 1);
    assert_eq!(one.len(), 4);
    assert_eq!(HiggsOptions::all(&HiggsConfig::published(), 0), one, "somebody speaks at least");
    assert_eq!(one[0], HiggsOptions { slots: 1, ..HiggsOptions::default() });
}

#[test]
fn each_choice_takes_less_than_the_one_before() {
    for slots in [1, 3, 16] {
        let choices = HiggsChoice::published(DeviceChoice::Cpu, slots).unwrap();
        assert!(choices.windows(2).all(|pair| pair[1].bytes < pair[0].bytes), "{choices:?}");
    }
}

/// What the published model takes of a card: there the floats have two bytes, and only the codec's decoder is there.
#[test]
fn the_smallest_choice_leaves_room_beside_a_twelve_gb_cards_models() {
    let config = HiggsConfig::published();
    let options = *HiggsOptions::all(&config, 3).last().unwrap();
    let need = MemoryNeed::of(&config, options.precision, &candle_core::Device::Cpu);
    // All but the quantized matrices are floats, which are half as large there.
    let matrices = 28 * (2 * 3072 * 3072 + 2 * 1024 * 3072 + 6 * 8192 * 3072) / 256 * 144;
    let weights = matrices + (need.weights - matrices) / 2;
    let card = weights + options.positions as u64 * need.bytes_per_position / 2 + DECODER + ACTIVATIONS;
    assert!((4 * GB..5 * GB).contains(&card), "{card}");
}

/// Rows of 24 weights are no blocks.
#[test]
fn what_cannot_be_quantized_keeps_its_precision_and_gives_up_the_rest() {
    let config = HiggsConfig::from_folder(&crate::testing::fixture("higgs_lm/wide")).unwrap();
    let all = HiggsOptions::all(&config, 2);
    let sizes: Vec<_> = all.iter().map(|it| (it.precision, it.slots, it.positions)).collect();
    let float = Precision::Float;
    assert_eq!(sizes, [(float, 2, 4096), (float, 2, 2048), (float, 1, 2048)]);
}
