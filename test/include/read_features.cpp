// read_features MESSAGE DESCRIPTORS SCALE_FACTOR: a Features message in CDR, as it is on the wire
// and in bags, through features.hpp. Prints "x y size angle response octave class_id" for each
// keypoint, then the same of the rectified ones if there are any, and writes the descriptors as raw
// float32. Status 2, and the sentence on stderr, for a message that is none.

#include <fastcdr/Cdr.h>
#include <fastcdr/FastBuffer.h>
#include <fastcdr/config.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <vector>

#include "rosidl_typesupport_fastrtps_cpp/identifier.hpp"
#include "rosidl_typesupport_fastrtps_cpp/message_type_support.h"
#include "superpoint_ros/features.hpp"
#include "superpoint_ros/msg/detail/features__rosidl_typesupport_fastrtps_cpp.hpp"

using superpoint_ros::msg::Features;

static Features deserialised(std::vector<char> bytes)
{
  eprosima::fastcdr::FastBuffer buffer(bytes.data(), bytes.size());
#if FASTCDR_VERSION_MAJOR > 1
  const auto kind = eprosima::fastcdr::CdrVersion::XCDRv1;
#else
  const auto kind = eprosima::fastcdr::Cdr::DDS_CDR;
#endif
  eprosima::fastcdr::Cdr cdr(buffer, eprosima::fastcdr::Cdr::DEFAULT_ENDIAN, kind);
  cdr.read_encapsulation();
  const auto * handle = ROSIDL_TYPESUPPORT_INTERFACE__MESSAGE_SYMBOL_NAME(
    rosidl_typesupport_fastrtps_cpp, superpoint_ros, msg, Features)();
  const auto * support = static_cast<const message_type_support_callbacks_t *>(handle->data);
  Features message;
  if (!support->cdr_deserialize(cdr, &message)) {
    throw std::runtime_error("no Features message");
  }
  return message;
}

static void print(const std::vector<cv::KeyPoint> & keypoints)
{
  for (const auto & k : keypoints) {
    std::printf(
      "%.9g %.9g %.9g %.9g %.9g %d %d\n",
      k.pt.x, k.pt.y, k.size, k.angle, k.response, k.octave, k.class_id);
  }
}

int main(int, char ** arguments)
{
  try {
    std::ifstream file(arguments[1], std::ios::binary);
    const Features features = deserialised({std::istreambuf_iterator<char>(file), {}});
    const double scale_factor = std::atof(arguments[3]);
    print(superpoint_ros::keypoints(features, scale_factor));
    if (!features.rectified_x.empty() || !features.rectified_y.empty()) {
      print(superpoint_ros::rectified_keypoints(features, scale_factor));
    }
    const cv::Mat rows = superpoint_ros::descriptors(features);
    std::printf("%d x %d, type %d\n", rows.rows, rows.cols, rows.type());
    std::ofstream(arguments[2], std::ios::binary).write(
      reinterpret_cast<const char *>(rows.data),
      static_cast<std::streamsize>(rows.total() * rows.elemSize()));
  } catch (const superpoint_ros::FeaturesError & error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 2;
  }
  return 0;
}
