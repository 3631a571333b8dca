"""A simulated annotator that knows the tabletop world exactly and makes mistakes at stated rates, behind real HTTP.

    world      scenes with questions, answers, boxes and masks that are exact
    noise      the kinds of mistakes, and the noisy annotation of a scene
    annotator  the replies to all requests of the data engine, errors of its checks included
    server     an OpenAI-compatible server of these replies
    masks      masks of a simulated box-to-mask model
    rows       rows of scenes after the stages questions, objects and masks

It takes the place of a vision-language model in tests and measurements where none can be had. Nothing that it yields
says anything about a real model.
"""
