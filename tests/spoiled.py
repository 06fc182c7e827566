"""Valid records with something in them that does not belong there."""

from hypothesis import strategies as st

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 3)
    | st.just(10**400)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["", " ", "a", "A", "tie", "left", "1", "[]", "[[", '["x"]', "\n\nHuman: a"])
    | st.sampled_from(["user", "assistant", "system", "tool", "human"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "text", "x"]), inner, max_size=3)
    ),
    max_leaves=4,
)


def spoiled(value, draw):
    """The value with one thing inside it, or all of it, replaced, shortened or removed."""
    if draw(st.integers(0, 4)) == 0:
        return draw(VALUES)
    if isinstance(value, dict) and value:
        key = draw(st.sampled_from(sorted(value)))
        if draw(st.integers(0, 5)) == 0:
            return {name: part for name, part in value.items() if name != key}
        return value | {key: spoiled(value[key], draw)}
    if isinstance(value, list) and value:
        at = draw(st.integers(0, len(value) - 1))
        if draw(st.integers(0, 5)) == 0:
            return value[:at]
        return [*value[:at], spoiled(value[at], draw), *value[at + 1 :]]
    return draw(VALUES)
