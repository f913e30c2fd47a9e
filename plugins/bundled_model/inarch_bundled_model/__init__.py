"""A tiny chat model, shipped as package data, that quick starts, tests and demos run on."""
