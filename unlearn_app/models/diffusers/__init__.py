"""The only folder that imports diffusers and peft: pipelines as models, their parts and files."""
