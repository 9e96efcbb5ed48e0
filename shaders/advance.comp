#version 450
// advance: counter += steps   the first word of the schedule; one invocation.
layout(binding = 0, std430) buffer schedule_block { uint counter; };
layout(local_size_x = 1) in;
layout(push_constant) uniform Push { uint step, steps; };

void main()
{
    counter += steps;
}
