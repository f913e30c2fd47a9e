"""From a request to its tokens: scheduler, batch, runner, sampler, the step loop, and the engines."""
