"""The lifecycle node around the pipeline: parameters, subscriptions, the action and transitions."""
