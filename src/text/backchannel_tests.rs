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

#[test]
fn a_misheard_echo_has_most_of_its_letters() {
    let said = "a reminder of the power of water and safety to sea travel ever since, while our planet Earth is composed of two parts.";
    for guess in ["to see track", "I'll plan it earth is company", "Sea travel"] {
        assert!(may_be_echo(guess, said), "{guess}");
    }
    for guess in ["Stop, please", "No, wait", "What do you mean?", "Okay, thank you", "Can I ask you something", ""] {
        assert!(!may_be_echo(guess, said), "{guess}");
    }
    assert!(is_echo("two sea travelling ever since", said));
    assert!(!is_echo("to see track", said), "too little to be sure");
}
