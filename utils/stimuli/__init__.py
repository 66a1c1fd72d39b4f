"""Images that a model can look at: generated objects and natural photographs."""
