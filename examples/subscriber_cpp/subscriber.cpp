// Read features in C++: keypoints and descriptors for OpenCV, and matches with the message before.
//
//   ros2 run superpoint_ros_subscriber subscriber --ros-args -r features:=/superpoint/features

#include <memory>
#include <string>
#include <vector>

#include <opencv2/features2d.hpp>
#include <rclcpp/rclcpp.hpp>
#include <superpoint_ros/features.hpp>

using superpoint_ros::msg::Features;

class Subscriber : public rclcpp::Node
{
public:
  Subscriber()
  : Node("subscriber")
  {
    subscription_ = create_subscription<Features>(
      "features", rclcpp::SensorDataQoS(),
      [this](Features::ConstSharedPtr message) {receive(*message);});
  }

private:
  void receive(const Features & message)
  {
    std::vector<cv::KeyPoint> keypoints;
    cv::Mat descriptors;
    try {
      keypoints = superpoint_ros::keypoints(message);
      descriptors = superpoint_ros::descriptors(message);
    } catch (const superpoint_ros::FeaturesError & error) {
      RCLCPP_WARN_THROTTLE(get_logger(), *get_clock(), 5000, "%s", error.what());
      return;
    }
    std::vector<cv::DMatch> matches;
    if (message.weights_id == weights_id_ && !before_.empty() && !descriptors.empty()) {
      matcher_.match(before_, descriptors, matches);
    }
    RCLCPP_INFO(get_logger(), "%zu keypoints, %zu matches", keypoints.size(), matches.size());
    before_ = descriptors;
    weights_id_ = message.weights_id;
  }

  cv::BFMatcher matcher_{cv::NORM_L2, true};  // mutual nearest neighbours
  cv::Mat before_;
  std::string weights_id_;
  rclcpp::Subscription<Features>::SharedPtr subscription_;
};

int main(int argc, char ** argv)
{
  rclcpp::init(argc, argv);
  rclcpp::spin(std::make_shared<Subscriber>());
  rclcpp::shutdown();
  return 0;
}
