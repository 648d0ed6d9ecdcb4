use super::*;

#[test]
fn agreement_and_noise_are_no_turn() {
    for text in ["", "Mhm.", "mm-hmm", "Uh, huh!", "Yeah, yeah.", "OK", "...", "Ahem.", "*coughs*", "Oh, okay."] {
        assert!(is_backchannel(text), "{text}");
    }
    for text in ["Stop", "Wait, wait.", "No.", "Yeah but why?", "What?", "okay tell me more", "Nein"] {
        assert!(!is_backchannel(text), "{text}");
    }
}

#[test]
fn ones_own_words_that_come_back_are_an_echo() {
    let said = "The weather in Paris is mild today, with a little rain in the evening and wind from the west.";
    for heard in ["with a little rain in the evening", "weather in Paris", "A little train in the evening.", "evening"]
    {
        assert!(is_echo(heard, said), "{heard}");
    }
    for heard in ["What about tomorrow?", "Stop talking please", "And in London?", "", "evening is what I asked about"]
    {
        assert!(!is_echo(heard, said), "{heard}");
    }
}
