"""A policy of rlkit/Nav as a ROS 2 node: scan, odometry and goal in, velocity commands out.

    rlkit train agent=ppo env=nav name=nav
    python examples/ros_nav.py runs/nav        (needs ROS 2 with rclpy; topics /scan, /odom, /goal_pose, /cmd_vel)

The table in rlkit.envs.navigation.scans says which entry of an observation is which field.
"""

import math
import sys

import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped, Twist
from nav_msgs.msg import Odometry
from rclpy.node import Node
from sensor_msgs.msg import LaserScan

import rlkit

REACH, ANGLES = 3.5, -math.pi + 2 * math.pi / 64 * np.arange(64)  # env.kwargs.reach of training, and the rays


class Driver(Node):
    def __init__(self, folder):
        super().__init__("rlkit_nav")
        self.agent, self.state, self.goal, self.scan, self.odom = rlkit.load(folder), None, None, None, None
        self.create_subscription(LaserScan, "scan", lambda message: setattr(self, "scan", message), 1)
        self.create_subscription(Odometry, "odom", lambda message: setattr(self, "odom", message), 1)
        self.create_subscription(PoseStamped, "goal_pose", lambda message: setattr(self, "goal", message), 1)
        self.commands = self.create_publisher(Twist, "cmd_vel", 1)
        self.create_timer(0.05, self.drive)

    def drive(self):
        if self.scan is None or self.odom is None or self.goal is None:
            return
        scan, pose, speed = self.scan, self.odom.pose.pose, self.odom.twist.twist
        beam = np.round((ANGLES - scan.angle_min) % (2 * math.pi) / scan.angle_increment).astype(int)
        ranges = np.nan_to_num(np.array(scan.ranges)[beam % len(scan.ranges)], nan=REACH, posinf=REACH)
        x, y = self.goal.pose.position.x - pose.position.x, self.goal.pose.position.y - pose.position.y
        turned = 2 * math.atan2(pose.orientation.z, pose.orientation.w)  # the goal is in the odometry's frame
        far, angle = math.hypot(x, y), math.atan2(y, x) - turned
        rest = [far, math.cos(angle), math.sin(angle), speed.linear.x, speed.angular.z]
        row = np.concatenate([ranges.clip(0, REACH), rest]).astype(np.float32)
        command, (action, self.state) = Twist(), self.agent(row, self.state)
        if far > 0.3:  # else it stands
            command.linear.x, command.angular.z = map(float, action)
        self.commands.publish(command)


rclpy.init()
rclpy.spin(Driver(sys.argv[1]))
