"""The clock decides where counted passes do not."""

from explaind_tf.sweeps import clock


class TestTheClock:
    """Counted passes decide, unless their costs are close."""

    def test_is_not_asked_where_counting_decides(self):
        def never():
            raise AssertionError("timed without need")

        assert clock.cheapest({"a": 1.0, "b": 100.0}, {"a": never, "b": never}) == "a"

    def test_decides_between_close_ones(self, monkeypatch):
        times = {"a": 2.0, "b": 1.0, "c": 0.1}
        monkeypatch.setattr(clock, "seconds", lambda function: times[function()])
        calls = {name: (lambda name=name: name) for name in times}
        assert clock.cheapest({"a": 1.0, "b": 1.5, "c": 50.0}, calls) == "b"
