//! Hermes / Qwen: `<tool_call>{"name":…,"arguments":…}</tool_call>`.
