// superpoint_ros/msg/Features as OpenCV has it, for SLAM and odometry in C++. Header-only; needs
// the core module of OpenCV 4.
//
//   find_package(superpoint_ros REQUIRED)
//   find_package(OpenCV REQUIRED COMPONENTS core)
//   target_link_libraries(mine superpoint_ros::features ${OpenCV_LIBS})

#ifndef SUPERPOINT_ROS__FEATURES_HPP_
#define SUPERPOINT_ROS__FEATURES_HPP_

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include <opencv2/core.hpp>

#include "superpoint_ros/msg/features.hpp"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#error "The descriptors of superpoint_ros/msg/Features are little-endian, and this machine is not."
#endif

namespace superpoint_ros
{

/// The arrays of a message do not fit together; what() says which, found and expected.
class FeaturesError : public std::runtime_error
{
public:
  using std::runtime_error::runtime_error;
};

/// Side in pixels of the network's cells: the size of a keypoint found in the image itself.
constexpr float CELL = 8.0F;

namespace detail
{

inline void expect_length(const char * name, std::size_t found, std::size_t expected)
{
  if (found != expected) {
    throw FeaturesError(
            "Features." + std::string(name) + " has " + std::to_string(found) +
            " values, expected " + std::to_string(expected));
  }
}

/// How many keypoints, after checking all that has a value for each. O(1).
inline std::size_t count(const msg::Features & features)
{
  const std::size_t n = features.x.size();
  if (n > static_cast<std::size_t>(std::numeric_limits<int>::max())) {
    throw FeaturesError("Features.x has more values than cv::Mat has rows: " + std::to_string(n));
  }
  expect_length("y", features.y.size(), n);
  expect_length("scores", features.scores.size(), n);
  expect_length("scale", features.scale.size(), n);
  if (!features.track_ids.empty()) {
    expect_length("track_ids", features.track_ids.size(), n);
  }
  return n;
}

/// x and y have a value for each keypoint.
inline std::vector<cv::KeyPoint> keypoints_at(
  const msg::Features & features, const std::vector<float> & x, const std::vector<float> & y,
  double scale_factor)
{
  if (!(scale_factor > 1.0)) {
    throw std::invalid_argument(
            "scale_factor must be above 1, got " + std::to_string(scale_factor));
  }
  std::vector<cv::KeyPoint> result;
  result.reserve(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    const float scale = features.scale[i];
    if (!(scale > 0.0F) || !std::isfinite(scale)) {
      throw FeaturesError(
              "Features.scale[" + std::to_string(i) + "] is " + std::to_string(scale) +
              ", expected a finite value above 0");
    }
    const auto octave = std::lround(std::log(static_cast<double>(scale)) / std::log(scale_factor));
    const int track = features.track_ids.empty() ? -1 : features.track_ids[i];
    result.emplace_back(
      x[i], y[i], CELL * scale, -1.0F, features.scores[i],
      static_cast<int>(std::max(octave, 0L)), track);
  }
  return result;
}

}  // namespace detail

/// Keypoints in pixels of the image as it came in, strongest first, in the order of descriptors().
///
/// pt        x right, y down, (0, 0) the centre of the top-left pixel, as OpenCV has it
/// size      pixels: side of the cell in which the network found it, 8 times its scale
/// octave    the nearest level of a pyramid with scale_factor between its levels: 0 is the image
///           itself, 1 where positions are scale_factor times as coarse. Keypoints of an enlarged
///           image are in 0, too.
/// response  score of the detector, 0 to 1
/// class_id  track id, or -1 without tracks
/// angle     -1
///
/// Throws FeaturesError for arrays of different lengths and for a scale that is none.
inline std::vector<cv::KeyPoint> keypoints(
  const msg::Features & features, double scale_factor = 2.0)
{
  detail::count(features);
  return detail::keypoints_at(features, features.x, features.y, scale_factor);
}

/// The same in pixels of the rectified image (the node's parameter `rectify`); NaN where the lens
/// model cannot be inverted. Throws FeaturesError, too, if the message has none for its keypoints.
inline std::vector<cv::KeyPoint> rectified_keypoints(
  const msg::Features & features, double scale_factor = 2.0)
{
  const std::size_t n = detail::count(features);
  detail::expect_length("rectified_x", features.rectified_x.size(), n);
  detail::expect_length("rectified_y", features.rectified_y.size(), n);
  return detail::keypoints_at(
    features, features.rectified_x, features.rectified_y, scale_factor);
}

/// Descriptors of a message of any descriptor type: N rows of D floats (CV_32F), of unit length.
///
/// Compare them by Euclidean distance (cv::NORM_L2), and only with others of the same weights_id.
/// Throws FeaturesError for an unknown type, and if there are not N * D * (4, 2 or 1) bytes.
inline cv::Mat descriptors(const msg::Features & features)
{
  const std::size_t rows = detail::count(features), columns = features.descriptor_dim;
  int stored_type = CV_32F;
  switch (features.descriptor_type) {
    case msg::Features::FLOAT32: break;
    case msg::Features::FLOAT16: stored_type = CV_16F; break;
    case msg::Features::UINT8: stored_type = CV_8U; break;
    default:
      throw FeaturesError(
              "Features.descriptor_type is " + std::to_string(features.descriptor_type) +
              ", expected FLOAT32 (0), FLOAT16 (1) or UINT8 (2)");
  }
  if (columns == 0 && rows > 0) {
    throw FeaturesError("Features.descriptor_dim is 0 for " + std::to_string(rows) + " keypoints");
  }
  if (columns > static_cast<std::size_t>(std::numeric_limits<int>::max())) {
    throw FeaturesError(
            "Features.descriptor_dim is " + std::to_string(columns) + ", too many for a cv::Mat");
  }
  const std::size_t bytes = features.descriptors.size(), component = CV_ELEM_SIZE1(stored_type);
  if (bytes % component != 0 || bytes / component != rows * columns) {
    throw FeaturesError(
            "Features.descriptors has " + std::to_string(bytes) + " bytes, expected " +
            std::to_string(rows) + " x " + std::to_string(columns) + " x " +
            std::to_string(component));
  }
  cv::Mat result(static_cast<int>(rows), static_cast<int>(columns), CV_32F);
  if (result.empty()) {
    return result;
  }
  const cv::Mat stored(
    result.size(), stored_type, const_cast<std::uint8_t *>(features.descriptors.data()));
  if (stored_type == CV_8U) {
    stored.convertTo(result, CV_32F, 1.0 / 256.0, -0.5);  // v is about (q - 128) / 256
  } else {
    stored.convertTo(result, CV_32F);
  }
  if (stored_type != CV_32F) {
    for (int row = 0; row < result.rows; ++row) {
      cv::Mat one = result.row(row);
      cv::normalize(one, one);
    }
  }
  return result;
}

}  // namespace superpoint_ros

#endif  // SUPERPOINT_ROS__FEATURES_HPP_
