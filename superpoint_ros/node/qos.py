"""Subscriptions and publishers whose quality of service can be overridden, and that say when it does not fit."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from rclpy.lifecycle import LifecycleNode
from rclpy.qos import (
    DurabilityPolicy,
    QoSCompatibility,
    QoSPolicyKind,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
    qos_policy_name_from_kind,
)
from rclpy.qos_overriding_options import QoSOverridingOptions

from superpoint_ros.node.declaration import started_with
from superpoint_ros.node.names import resolved

try:
    from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks, UnsupportedEventTypeError
except ImportError:  # Humble
    from rclpy.qos_event import PublisherEventCallbacks, SubscriptionEventCallbacks, UnsupportedEventTypeError

OVERRIDES = "qos_overrides."
TELLS_OF_MATCHES = "matched" in inspect.signature(PublisherEventCallbacks).parameters
"""Whether rclpy tells when subscribers come and go; Humble's does not."""
MOST_LOST = 2**20
"""Messages that may be lost at once: Fast DDS 3.2 tells of 2^31 - 1 when a publisher comes anew."""
PLACEHOLDERS = {
    "_NODE_NAME_UNKNOWN_": "a node whose name is not known yet",
    "_CREATED_BY_BARE_DDS_APP_": "a program without ROS",
}
"""What the middleware calls a node when it knows an endpoint of it and no name, and what that means."""
OVERRIDABLE = (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY, QoSPolicyKind.DURABILITY)


def subscribe(
    node: LifecycleNode,
    message_class: Any,
    topic: str,
    callback: Callable[[Any], None],
    depth: int = 1,
    latched: bool = False,
    on_lost: Callable[[int], None] | None = None,
) -> Any:
    """A subscription, best effort unless overridden: every publisher can serve it.

    latched  reliable and transient local instead: what was published before comes, too
    on_lost  called with how many messages the middleware lost, where it tells

    Raises RuntimeError with a sentence for a topic name or an override that is not allowed.
    """
    name = resolved(node, topic)
    profile = _asked_for(depth, latched)

    def create(events: dict[str, Any]) -> Any:
        return node.create_subscription(
            message_class,
            topic,
            callback,
            profile,
            event_callbacks=SubscriptionEventCallbacks(**events),
            qos_overriding_options=QoSOverridingOptions(OVERRIDABLE),
        )

    events: dict[str, Any] = {"incompatible_qos": _complaint(node, name, profile, True)}
    lost = {"message_lost": lambda event: on_lost(plausible(event.total_count_change))} if on_lost else {}
    try:
        try:
            return create({**events, **lost})
        except UnsupportedEventTypeError:  # a middleware that does not tell
            return create(events)
    except Exception as error:
        # rclpy raises RuntimeError, ValueError or its own
        raise RuntimeError(f"The subscription to {name} cannot be made: {error}") from None


def prepare_to_subscribe(node: LifecycleNode, topic: str, depth: int) -> str:
    """Declare the overrides of a subscription that is made later, and raise now what it would raise then.

    Under the names that ROS documents: rclpy, which has no public word for it, takes what it finds there. Anew each
    time, as `depth` may be another than when the node was last configured. Returns the full name of the topic.
    """
    name, profile = resolved(node, topic), _asked_for(depth, False)
    try:
        for policy in OVERRIDABLE:
            word = policy.name.lower()
            parameter, default = f"{OVERRIDES}{name}.subscription.{word}", getattr(profile, word)
            if node.has_parameter(parameter):
                node.undeclare_parameter(parameter)
            if policy == QoSPolicyKind.DEPTH:
                node.declare_parameter(parameter, default)
                continue
            given = node.declare_parameter(parameter, default.name.lower()).value
            if given.upper() not in type(default).__members__:
                raise ValueError(f"unexpected override of {word}: '{given}'")
    except Exception as error:
        raise RuntimeError(f"The subscription to {name} cannot be made: {error}") from None
    return name


def plausible(lost: int) -> int:
    """How many messages a middleware's event stands for; none for what cannot be."""
    return lost if 0 <= lost < MOST_LOST else 0


def advertise(
    node: LifecycleNode,
    message_class: Any,
    topic: str,
    depth: int = 5,
    gated: bool = True,
    latched: bool = False,
    on_matched: Callable[[], None] | None = None,
) -> Any:
    """A publisher, reliable unless overridden: it can serve every volatile subscriber.

    gated       whether it publishes only while the node is active
    latched     whether late subscribers get what was published last
    on_matched  called when a subscriber comes or goes, where rclpy and the middleware tell

    Raises RuntimeError with a sentence for a topic name or an override that is not allowed.
    """
    name = resolved(node, topic)
    profile = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL) if latched else QoSProfile(depth=depth)
    make = node.create_lifecycle_publisher if gated else node.create_publisher

    def create(events: dict[str, Any]) -> Any:
        callbacks = PublisherEventCallbacks(**events)
        options = QoSOverridingOptions(OVERRIDABLE)
        return make(message_class, topic, profile, event_callbacks=callbacks, qos_overriding_options=options)

    events: dict[str, Any] = {"incompatible_qos": _complaint(node, name, profile, False)}
    matched = {"matched": lambda event: on_matched()} if on_matched and TELLS_OF_MATCHES else {}
    try:
        try:
            return create({**events, **matched})
        except UnsupportedEventTypeError:
            return create(events)
    except Exception as error:
        raise RuntimeError(f"The publisher of {name} cannot be made: {error}") from None


def warn_of_ineffective_overrides(node: LifecycleNode) -> None:
    """Log those qos_overrides that no topic of the node has asked for, as of a misspelt name."""
    known = [OVERRIDES + name for name in node.get_parameters_by_prefix(OVERRIDES.rstrip("."))]
    for name in sorted(started_with(node)):
        if name.startswith(OVERRIDES) and name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            nearest = f" (did you mean '{close[0]}'?)" if close else ""
            node.get_logger().warning(f"parameter '{name}' has no effect: no such topic or policy here{nearest}.")


def incompatibility(topic: str, others: Sequence[Any], ours: Any, subscribing: bool, policy: Any) -> str:
    """One sentence with both sides' settings.

    others  endpoint infos of the other side; `ours` the profile of this node's subscription or publisher
    policy  kind of the policy that does not fit, for an endpoint that is gone already
    """
    verb, role = ("offers", "publisher") if subscribing else ("asks for", "subscriber")
    fault = []
    for other in others:
        pair = (other.qos_profile, ours) if subscribing else (ours, other.qos_profile)
        if qos_check_compatible(*pair)[0] == QoSCompatibility.ERROR:
            fault.append(f"{endpoint_name(other)} {verb} {settings(other.qos_profile)}")
    found = "; ".join(fault) or f"a {role} {verb} another {qos_policy_name_from_kind(policy)}"
    own = f"this node {'asks for' if subscribing else 'offers'} {settings(ours)}"
    side = "subscription" if subscribing else "publisher"
    effect = "no message comes from it" if subscribing else "no message goes to it"
    return f"{topic}: {found}, but {own}: {effect}. Change either, here by qos_overrides.{topic}.{side}."


def publishers_sentence(node: Any, topic: str, type_name: str) -> str:
    """Who publishes a topic, and with which settings, for a topic that stays silent."""
    publishers = node.get_publishers_info_by_topic(topic)
    if not publishers:
        alike = sorted(name for name, types in node.get_topic_names_and_types() if type_name in types)
        others = ", ".join(name for name in alike if _published_by_others(node, name))
        return f"publishers: none; topics of that type: {others or 'none'}"
    described = []
    for other in publishers:
        wrong = "" if other.topic_type == type_name else f", and is a {other.topic_type}, not a {type_name}"
        described.append(f"{endpoint_name(other)} ({settings(other.qos_profile)}{wrong})")
    return f"publishers: {', '.join(described)}"


def endpoint_name(endpoint: Any) -> str:
    """The node that an endpoint belongs to, as in /front/driver."""
    return PLACEHOLDERS.get(endpoint.node_name) or f"{endpoint.node_namespace.rstrip('/')}/{endpoint.node_name}"


def settings(profile: Any) -> str:
    """The policies that decide about compatibility, as in "best effort, volatile"."""
    names = (profile.reliability.name, profile.durability.name)
    return ", ".join(name.lower().replace("_", " ") for name in names)


def _asked_for(depth: int, latched: bool) -> QoSProfile:
    profile = QoSProfile(depth=depth, reliability=ReliabilityPolicy.BEST_EFFORT)
    if latched:
        profile.reliability, profile.durability = ReliabilityPolicy.RELIABLE, DurabilityPolicy.TRANSIENT_LOCAL
    return profile


def _complaint(node: Any, topic: str, profile: QoSProfile, subscribing: bool) -> Callable[[Any], None]:
    """What to do when another endpoint does not fit a subscription or publisher of ours: log the sentence."""

    def on_incompatible(event: Any) -> None:
        subscribers = node.get_subscriptions_info_by_topic(topic)
        publishers = node.get_publishers_info_by_topic(topic)
        ours, others = (subscribers, publishers) if subscribing else (publishers, subscribers)
        own = _own(node, ours, profile)
        node.get_logger().warning(incompatibility(topic, others, own, subscribing, event.last_policy_kind))

    return on_incompatible


def _own(node: Any, endpoints: Sequence[Any], asked_for: QoSProfile) -> Any:
    """The profile as the middleware has it: only there have all policies a value that can be compared."""
    name = node.get_fully_qualified_name()
    return next((one.qos_profile for one in endpoints if endpoint_name(one) == name), asked_for)


def _published_by_others(node: Any, topic: str) -> bool:
    own = node.get_fully_qualified_name()
    return any(endpoint_name(one) != own for one in node.get_publishers_info_by_topic(topic))
