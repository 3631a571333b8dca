"""Purposes of household objects, and how people ask for one without naming the object."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Intent:
    """A purpose and its wordings.

    Attributes:
        serves: Categories that serve it.
        maybe: Categories that might serve it if need be, which makes an instruction borderline.
        phrases: Completions of "something ..." and "the things ..."; {s} and {is_} stand for the ending of the verb and
            for "is" or "are".
        questions: Whole sentences that ask for it.
        unseen_questions: Sentences reserved for the split `unseen`.
    """

    serves: tuple[str, ...]
    maybe: tuple[str, ...]
    phrases: tuple[str, ...]
    questions: tuple[str, ...]
    unseen_questions: tuple[str, ...]


INTENTS = {
    'drink': Intent(
        ('mug', 'glass'),
        ('bowl', 'bottle', 'can', 'teapot'),
        ('to drink from', 'I can drink out of', 'to pour a drink into'),
        ('I am thirsty, what can I pour water into?', 'What can I drink from?', 'What would hold my coffee?'),
        ('Where should my tea go?', 'I fancy a hot drink, what do I take it from?'),
    ),
    'cut': Intent(
        ('knife', 'scissors'),
        (),
        ('to cut with', 'with a sharp edge', 'with a blade'),
        ('What can I cut with?', 'I have to cut something, what do I use?', 'Which of these has a blade?'),
        ('What here has a sharp edge?', 'This string is too long, what helps?'),
    ),
    'discard': Intent(
        ('napkin',),
        (),
        ('that belong{s} in the bin', 'to throw away', 'that {is_} rubbish'),
        ('What should go in the bin?', 'What can be thrown away?', 'Which of these is trash?'),
        ('What is left to tidy into the waste basket?', 'What is only litter here?'),
    ),
    'eat': Intent(
        ('apple', 'banana'),
        ('lemon', 'can'),
        ('to eat', 'I can eat', 'I can have as a snack'),
        ('I am hungry, what can I eat?', 'What could I have as a snack?', 'Which of these is food?'),
        ('What would make a healthy bite?', 'My stomach rumbles, what helps?'),
    ),
    'sour': Intent(
        ('lemon',),
        (),
        ('that taste{s} sour', 'to squeeze into my tea', 'with sour juice'),
        ('What could I squeeze over the fish?', 'What tastes sour?', 'What goes well with tea?'),
        ('What would make my water taste fresh?',),
    ),
    'read': Intent(
        ('book',),
        (),
        ('to read', 'with pages', 'I can read'),
        ('I am bored, what can I read?', 'What has pages?', 'What tells a story?'),
        ('What would I find in a library?', 'What should I take to bed for some reading?'),
    ),
    'wipe': Intent(
        ('sponge',),
        ('napkin',),
        ('to scrub with', 'to do the dishes with', 'I can clean with'),
        ('What do I wash the dishes with?', 'What can I scrub the sink with?', 'The table is sticky, what helps?'),
        ('What soaks up spilled water?',),
    ),
    'fry': Intent(
        ('pan',),
        (),
        ('to fry with', 'to cook on the stove with', 'I can fry eggs in'),
        ('What can I fry an egg in?', 'What belongs on the stove?', 'What do I make pancakes in?'),
        ('What do I need to roast some onions?',),
    ),
    'brew': Intent(
        ('teapot',),
        (),
        ('to brew tea in', 'to make tea in', 'that tea is poured from'),
        ('What do I make tea in?', 'What is tea poured from?', 'Guests want tea, what do I brew it in?'),
        ('What keeps a litre of tea?',),
    ),
    'flowers': Intent(
        ('vase',),
        ('bottle', 'glass', 'teapot'),
        ('to put flowers in', 'for a bunch of flowers', 'that hold{s} flowers'),
        ('I bought flowers, where can I put them?', 'What can hold a bunch of flowers?', 'Where do these tulips go?'),
        ('What would roses stand in?',),
    ),
    'play': Intent(
        ('ball',),
        (),
        ('to play catch with', 'to throw around', 'that bounce{s}'),
        ('What can the children play with?', 'What bounces?', 'What can I throw for the dog?'),
        ('What would a juggler take?',),
    ),
    'stir': Intent(
        ('spoon',),
        ('fork', 'knife'),
        ('to stir with', 'to eat soup with', 'I can stir my coffee with'),
        ('What can I stir my coffee with?', 'What do I eat soup with?', 'What do I take to measure sugar?'),
        ('What helps to eat yoghurt?',),
    ),
    'spear': Intent(
        ('fork',),
        ('knife',),
        ('to eat pasta with', 'with prongs', 'I can eat salad with'),
        ('What do I eat spaghetti with?', 'What has prongs?', 'What do I take for the salad?'),
        ('What picks up noodles best?',),
    ),
    'carry': Intent(
        ('tray',),
        ('plate', 'pan', 'box'),
        ('to carry dishes on', 'to serve drinks on', 'I can carry several cups on'),
        ('What can I carry the dishes on?', 'What does a waiter serve drinks on?', 'How do I carry all this at once?'),
        ('What would bring breakfast to bed?',),
    ),
    'ship': Intent(
        ('box',),
        (),
        ('to pack a gift in', 'I can mail things in', 'for packing things'),
        ('What can I pack a present in?', 'What can I send by mail?', 'What could these things be packed into?'),
        ('What would the courier take along?',),
    ),
    'fizzy': Intent(
        ('can',),
        ('bottle',),
        ('with a pull tab', 'that hold{s} a fizzy drink', 'made of tin'),
        ('Where is my soda?', 'What has a pull tab?', 'What do I open with a pull tab?'),
        ('What would hiss when it is opened?',),
    ),
    'soup': Intent(
        ('bowl',),
        ('plate', 'mug', 'pan'),
        ('to eat cereal from', 'to serve soup in', 'I can eat soup from'),
        ('What do I pour my cereal into?', 'What can I serve soup in?', 'What do I eat muesli from?'),
        ('What would take a portion of porridge?',),
    ),
}
