"""Figures of a running server, in the format of Prometheus."""

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from nuwa_lip.serving.jobs import Job, Worker


class Figures:
    """Counts what was asked for, and how long it took."""

    media_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.jobs = Counter(
            "nuwa_lip_jobs", "Jobs that are over, by how they ended.", ["state"], registry=self.registry
        )
        self.refused = Counter(
            "nuwa_lip_refused", "Requests refused because the queue was full.", registry=self.registry
        )
        self.seconds = Histogram("nuwa_lip_job_seconds", "Time that the work of a job took.", registry=self.registry)
        self.waiting = Gauge("nuwa_lip_jobs_waiting", "Jobs that wait.", registry=self.registry)

    def count(self, job: Job) -> None:
        """Count a job that is over."""
        self.jobs.labels(job.state).inc()
        if job.seconds is not None:
            self.seconds.observe(job.seconds)

    def text(self, worker: Worker) -> bytes:
        """Write all figures."""
        self.waiting.set(worker.waiting)
        return generate_latest(self.registry)
