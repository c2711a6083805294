/* SPDX-License-Identifier: Apache-2.0 */
/* For cppcheck, which reads no system headers: macros of theirs that look like no C. */
#define json_object_foreach(object, key, value) \
	for (key = first_key(object); (value = next_value(object));)
#define json_array_foreach(array, index, value) \
	for (index = 0; (value = json_array_get(array, index)); index++)
