"""Conversation: render prompts, split responses into trace and answer, recognise refusals and reflection."""
