"""`instructsam bag`: the pipeline over a recording."""
