#!/usr/bin/env python3
"""Utterances with pauses inside them: what endpointing.py plays. By itself it writes a set as WAV.

usage: pauses.py HTTP_URL first|unseen FOLDER

There are two sets of fifty. Twelve and eight of them are real recordings (Debian's pocketsphinx-testdata: LibriVox, read cards,
commands), the rest is spoken by the server's own voices (Kokoro). Each is cut where its text has a `|`, and room noise of 0.3 to
1.0 s is put between: inside a phrase, after a filler, after a clause that waits for another. At `||` the words before it could have been all. The words are
found by the server's own recogniser (word times), the cut by the least energy near the word's end. All is drawn from one
seed. Needs: numpy, and a server.
"""
import difflib, json, os, random, re, sys

import numpy

from sound import RATE, ROOM_NOISE, read_wave, speak, transcribe, wave_bytes

CLIPS = "/usr/share/pocketsphinx/test/data/"
BOOK = "librivox/sense_and_sensibility_01_austen_64kb-"
LEAD_SECONDS, TAIL_SECONDS = 0.6, 3.0
# A cut is moved to the quietest place within so many seconds of the word's end.
SNAP_SECONDS = 0.12

FIRST = [
    (BOOK + "0870.wav", "And Mr. John Dashwood had then leisure | to consider how much there might be prudently in his power to do for them."),
    (BOOK + "0870.wav", "And Mr. John Dashwood had then leisure to consider | how much there might be | prudently in his power to do for them."),
    (BOOK + "0880.wav", "He was not an | ill-disposed young man."),
    (BOOK + "0890.wav", "Unless to be rather cold-hearted | and rather selfish is to be ill-disposed."),
    (BOOK + "0890.wav", "Unless to be rather | cold-hearted and rather selfish is to be | ill-disposed."),
    (BOOK + "0920.wav", "Had he married a more amiable woman, | he might have been made still more respectable than he was."),
    (BOOK + "0920.wav", "Had he married a more | amiable woman, he might have been made still more respectable || than he was."),
    (BOOK + "0930.wav", "He might even have been made | amiable himself."),
    ("goforward.raw", "Go forward || 10 meters."),
    ("something.raw", "Go somewhere and | do something."),
    ("cards/005.wav", "8 of spades, | 4 of clubs, | 7 of hearts."),
    ("cards/002.wav", "4 | Queen of clubs."),
    ("af_heart", "I was thinking that we could | maybe go to the cinema tonight."),
    ("am_michael", "Can you tell me what the weather | is going to be like tomorrow?"),
    ("bf_emma", "I need to buy some bread, || some milk, || and a dozen eggs."),
    ("bm_george", "My sister lives in Leeds, || but she works in Manchester."),
    ("af_bella", "What do you think about | the new library on Main Street?"),
    ("am_adam", "I would like to order a | large coffee with oat milk."),
    ("af_nicole", "Well, um, | I am not really sure about that."),
    ("bf_isabella", "If it rains on Saturday, | we could stay at home and bake a cake."),
    ("am_eric", "Yesterday I went to the doctor || because my knee was hurting again."),
    ("af_sarah", "Could you remind me to | call my mother at six o'clock?"),
    ("bm_lewis", "The train was late, so | I missed the beginning of the concert."),
    ("af_sky", "Tell me a story about a dragon || who was afraid of the dark."),
    ("am_liam", "How far is it from | London to Edinburgh?"),
    ("af_nova", "My favourite colours are blue, || green, || and a very dark red."),
    ("bf_alice", "I have been learning Spanish for | about two years now."),
    ("am_onyx", "Please turn off the lights in the | kitchen and the hallway."),
    ("af_kore", "I think that the best thing about summer is | that the evenings are so long."),
    ("bm_daniel", "Do you know whether the museum | is open on Mondays?"),
    ("af_river", "We moved here when I was | seven years old."),
    ("am_fenrir", "She said that she would come, || but I do not believe her."),
    ("af_jessica", "Is there anything that I should | bring to the party on Friday?"),
    ("bm_fable", "The problem is that my | computer will not start any more."),
    ("af_alloy", "I like him, || although he never listens to me."),
    ("am_puck", "Let me see, | I think it was in nineteen ninety-four."),
    ("bf_lily", "First you boil the water, || and then you add the pasta."),
    ("af_aoede", "Why do cats always | land on their feet?"),
    ("am_echo", "I was going to say that, uh, | the second answer was better."),
    ("af_heart", "There is a small café near the station || where they make their own ice cream."),
    ("am_michael", "Could we talk about something else, || for example your holidays?"),
    ("bf_emma", "He told me to wait until | the end of the month."),
    ("bm_george", "In my opinion | the book was much better than the film."),
    ("af_bella", "I cannot find my keys, || and my phone is in the car."),
    ("am_adam", "What is the difference between | a crocodile and an alligator?"),
    ("af_sarah", "My name is Laura || and I live in a village by the sea."),
    ("bf_isabella", "I would rather have tea than | coffee in the evening."),
    ("am_eric", "When I was a child | my grandfather took me fishing every Sunday."),
    ("af_nova", "You should try the soup, || it is really good today."),
    ("bm_lewis", "Actually, | I have changed my mind."),
]
# Written when all was decided. The eight recordings are of the first set, and cut elsewhere; nothing was fitted to the rest.
UNSEEN = [
    (BOOK + "0870.wav", "And Mr. John Dashwood | had then leisure to consider how much there might be prudently in his | power to do for them."),
    (BOOK + "0880.wav", "He was not an ill-disposed | young man."),
    (BOOK + "0890.wav", "Unless to be rather cold-hearted and | rather selfish is to be ill-disposed."),
    (BOOK + "0920.wav", "Had he married a more amiable woman, he might have | been made still more respectable than he was."),
    (BOOK + "0930.wav", "He might even | have been made amiable himself."),
    ("cards/005.wav", "8 of | spades, 4 of clubs, 7 of hearts."),
    ("goforward.raw", "Go | forward 10 meters."),
    ("something.raw", "Go somewhere | and do something."),
    ("am_michael", "I was wondering if you could | help me with my homework."),
    ("af_heart", "What time does the | supermarket close on Sundays?"),
    ("bm_george", "We need three chairs, || a table, || and some candles."),
    ("bf_emma", "My brother plays the guitar, || but he never practises."),
    ("am_adam", "How do I get to | the airport from here?"),
    ("af_bella", "I want a ticket to | Glasgow for tomorrow morning."),
    ("bf_isabella", "Hmm, | I would have to think about that."),
    ("af_nicole", "If you see Peter, | please tell him that I called."),
    ("af_sarah", "Last week we painted the kitchen || because the old colour was awful."),
    ("am_eric", "Would you mind | opening the window a little?"),
    ("af_sky", "The shop was closed, so | we ordered something online."),
    ("bm_lewis", "Write me a poem about a river || that runs through a quiet town."),
    ("af_nova", "How many people live in | Norway and Sweden together?"),
    ("am_liam", "The best months are April, || May, || and the beginning of June."),
    ("am_onyx", "She has been working at the hospital for | almost eleven years."),
    ("bf_alice", "Put the big box in the | corner next to the sofa."),
    ("bm_daniel", "I hope that | the weather stays like this."),
    ("af_kore", "Can you find out when | the next bus leaves?"),
    ("am_fenrir", "They bought a house where | the old school used to be."),
    ("af_river", "He promised to write, || but we have heard nothing."),
    ("bm_fable", "Is there a restaurant that you | would recommend near the harbour?"),
    ("af_jessica", "My phone tells me that the | battery needs to be replaced."),
    ("am_puck", "I enjoyed the concert, || although it was far too loud."),
    ("af_alloy", "Well, | I suppose we could try again on Monday."),
    ("af_aoede", "Take the pan off the heat, || and then stir in the butter."),
    ("bf_lily", "Why does the moon | look bigger near the horizon?"),
    ("am_echo", "What I meant was, um, | we should leave a bit earlier."),
    ("am_michael", "There is a path behind the church || that goes all the way to the lake."),
    ("af_heart", "Shall we play a game, || or would you rather read?"),
    ("bm_george", "You can keep it until | you have finished the last chapter."),
    ("bf_emma", "To be honest | I did not understand a single word."),
    ("am_adam", "The dog is asleep, || and the children are in the garden."),
    ("af_bella", "Which one is heavier, | a blue whale or an elephant?"),
    ("am_eric", "I am calling from Dublin || and I have a question about my order."),
    ("bf_isabella", "It would be nicer with | lemon instead of vinegar."),
    ("af_sarah", "Before we begin | I have to tell you something important."),
    ("bm_lewis", "Have a look at this picture, || it was taken in Greece."),
    ("af_nova", "Sorry, | I did not mean to interrupt you."),
    ("am_liam", "Set a timer for | twenty five minutes please."),
    ("af_sky", "He drove the car into | the garage and locked the door."),
    ("bf_alice", "I have never seen such a | beautiful sunset in my life."),
    ("am_onyx", "Because of the snow | all flights have been cancelled."),
]
SETS = {"first": FIRST, "unseen": UNSEEN}


def plain(word):
    return re.sub(r"[^a-z0-9]", "", word.lower())


def cut_places(server, samples, text):
    """Where the words before each `|` end, in samples."""
    heard = transcribe(server, samples)["words"]
    parts = [[plain(word) for word in part.split()] for part in re.split(r"\|+", text)]
    wanted = [word for part in parts for word in part]
    places, count = [], 0
    matcher = difflib.SequenceMatcher(None, [plain(word["word"]) for word in heard], wanted, autojunk=False)
    ends = {}
    for kind, a, a_end, b, b_end in matcher.get_opcodes():
        # A word that was misheard stands in its place all the same.
        if kind == "equal" or (kind == "replace" and a_end - a == b_end - b):
            ends.update({b + i: heard[a + i]["end"] for i in range(b_end - b)})
    for part in parts[:-1]:
        count += len(part)
        assert count - 1 in ends, f"{text}: the word before the pause was not heard: {heard}"
        places.append(quietest(samples, int(ends[count - 1] * RATE)))
    return places


def quietest(samples, near):
    step, reach = RATE // 200, int(SNAP_SECONDS * RATE)
    places = range(max(0, near - reach), min(len(samples) - 4 * step, near + reach), step)
    return min(places, key=lambda at: float((samples[at : at + 4 * step] ** 2).sum())) + 2 * step


def speech_bounds(samples, decibels=30):
    """From the first to the last 20 ms within so much of the loudest."""
    step = RATE // 50
    power = numpy.array([float((samples[i : i + step] ** 2).mean()) for i in range(0, len(samples) - step, step)])
    loud = numpy.flatnonzero(power >= power.max() / 10 ** (decibels / 10))
    return loud[0] * step, (loud[-1] + 1) * step


def faded(piece):
    piece, ramp = piece.copy(), min(80, len(piece) // 2)
    piece[:ramp] *= numpy.linspace(0, 1, ramp)
    piece[len(piece) - ramp :] *= numpy.linspace(1, 0, ramp)
    return piece


def utterances(server, which):
    """A list of dicts: text, samples, pauses [(begin, end) in seconds], end (of speech, seconds), real, open (no pause
    stands where the words could have been all)."""
    draw, made = random.Random(20261121), []
    for source, text in SETS[which]:
        is_real = "." in source
        if is_real:
            data = open(os.path.join(CLIPS, source), "rb").read()
            samples = read_wave(data) if data[:4] == b"RIFF" else numpy.frombuffer(data, "<i2").astype(numpy.float32) / 32768
        else:
            samples = speak(server, source, re.sub(r" \|+ ", " ", text))
        samples = samples * (0.1 / float(numpy.sqrt((samples**2).mean()) + 1e-9))
        places = cut_places(server, samples, text)
        begin, end = speech_bounds(samples)
        pieces, pauses = [numpy.zeros(int(LEAD_SECONDS * RATE), numpy.float32)], []
        at = 0
        edges = list(zip([begin] + places, places + [end]))
        for number, (start, stop) in enumerate(edges):
            piece = samples[start:stop]
            first, last = speech_bounds(piece)
            pieces.append(faded(piece[first:last]))
            at = sum(map(len, pieces))
            if number + 1 < len(edges):
                pause = int(draw.uniform(0.3, 1.0) * RATE)
                pauses.append((at / RATE, (at + pause) / RATE))
                pieces.append(numpy.zeros(pause, numpy.float32))
        pieces.append(numpy.zeros(int(TAIL_SECONDS * RATE), numpy.float32))
        whole = numpy.concatenate(pieces)
        # A voice's own hiss after its last word may be within 30 dB.
        _, end = speech_bounds(whole, 25)
        noise = numpy.random.default_rng(len(made)).normal(0, ROOM_NOISE, len(whole)).astype(numpy.float32)
        made.append({"text": text, "samples": whole + noise, "pauses": pauses, "end": end / RATE, "real": is_real, "open": "||" not in text})
    return made


def kept(server, which, folder):
    """The same, written to a folder once and then read from it."""
    index = os.path.join(folder, "index.json")
    if not os.path.exists(index):
        os.makedirs(folder, exist_ok=True)
        made = utterances(server, which)
        for number, utterance in enumerate(made):
            with open(os.path.join(folder, f"{number:02}.wav"), "wb") as file:
                file.write(wave_bytes(utterance.pop("samples")))
        with open(index, "w") as file:
            json.dump(made, file, indent=1)
    made = json.load(open(index))
    for number, utterance in enumerate(made):
        utterance["samples"] = read_wave(open(os.path.join(folder, f"{number:02}.wav"), "rb").read())
    return made


if __name__ == "__main__":
    kept(sys.argv[1].rstrip("/"), sys.argv[2], sys.argv[3])
