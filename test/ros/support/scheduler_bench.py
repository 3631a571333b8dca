"""A scheduler without threads, a model or a ROS graph, for tests of its decisions."""

from types import SimpleNamespace

from builtin_interfaces.msg import Time
from fakes import FakeClient, FakePublisher, FakeSettings
from std_msgs.msg import Header

from instructsam_ros.action import Segment
from instructsam_ros.pipeline.camera_frame import CameraFrame
from instructsam_ros.pipeline.scheduling.camera_stream import CameraStream
from instructsam_ros.pipeline.scheduling.goal import GoalRequest
from instructsam_ros.pipeline.scheduling.result_publisher import OutgoingMessage
from instructsam_ros.pipeline.scheduling.scheduler import Scheduler
from instructsam_ros.pipeline.scheduling.statistics import Statistics


class Bench:
    """A scheduler in a session, its cameras, and shorthands for what the other threads do."""

    def __init__(self, cameras=1):
        self.settings = FakeSettings()
        self.statistics = Statistics()
        self.publisher = FakePublisher()
        names = ['left', 'right', 'rear'][:cameras]
        self.streams = [CameraStream(name, results=None) for name in names]
        self.scheduler = Scheduler(self.streams, self.settings, self.statistics)
        self.scheduler.activate()
        self._seconds = 0

    def see(self, stream=None):
        """Offer a new frame, whose stamp counts up from 1 s."""
        self._seconds += 1
        frame = CameraFrame(SimpleNamespace(header=Header(stamp=Time(sec=self._seconds))), float(self._seconds))
        self.scheduler.offer(stream or self.streams[0], frame)
        return frame

    def request(self, text='the mugs', freshness=Segment.Goal.NEWEST, stamp=0, score_threshold=0.0, own_frame=None):
        goal = Segment.Goal(instruction=text, freshness=freshness, score_threshold=score_threshold)
        goal.stamp.sec = stamp
        client = FakeClient()
        request = GoalRequest(goal, self.streams[0], self.settings.value, client, own_frame)
        request.client = client
        return request

    def ask(self, *args, **kwargs):
        request = self.request(*args, **kwargs)
        self.scheduler.ask(request)
        return request

    def publish(self, work, *, is_refused=False):
        """Deliver a result of `work`; return whether it was published."""
        message = OutgoingMessage(self.publisher, work)
        return self.scheduler.publish_if_current(work, [message], is_refused=is_refused)

    def answer_next(self):
        """Take the next work and publish its result; return the work."""
        work = self.scheduler.next_work()
        assert self.publish(work)
        return work
