// The matrix product that linear, linear_dx, linear_dw and linear_update share:
//   sum (rows, columns) = left (rows, depth) · right (depth, columns)
// LF_PRODUCT says how the factors lie in memory:
//   LF_PLAIN        left (rows, depth), right (depth, columns)
//   LF_RIGHT_TURNED left (rows, depth), right (columns, depth)
//   LF_LEFT_TURNED  left (depth, rows), right (depth, columns)
// A workgroup is LANES x BANDS invocations, lanes along the columns. An invocation owns ROWS rows and QUADS groups of
// four columns, in registers, and sums over the depth in order; neighbouring lanes own neighbouring columns. Rows and
// columns past the edge repeat the last one, and their sums are not stored.
// All lanes need the same words of the left factor. A texel build, where a workgroup is one subgroup, has each lane load
// another part of them, and passes them round: on a processor a load costs as much as twenty multiplications, whether the
// lanes' addresses differ or not. It goes LANES deep at a time, for what is carried round a loop is masked every time.
// The includer declares `left` and `right` before, and defines store() and, for column sums of `right`, LF_COLUMN_SUMS.
#extension GL_EXT_control_flow_attributes : require
#ifdef LF_TEXEL
#extension GL_KHR_shader_subgroup_shuffle : require
#endif
#define LF_PLAIN        0
#define LF_RIGHT_TURNED 1
#define LF_LEFT_TURNED  2

layout(local_size_y_id = 1) in;
layout(constant_id = 2) const uint ROWS = 8; // in a texel build, a multiple of LANES
layout(constant_id = 3) const uint QUADS = 2;
layout(constant_id = 4) const bool LEFT_QUADS = false;   // the left factor's width is a multiple of four
layout(constant_id = 5) const bool RIGHT_QUADS = false;  // the right factor's is
layout(constant_id = 6) const bool RESULT_QUADS = false; // the columns are
layout(constant_id = 7) const uint ACTIVATION = 0;
#ifdef LF_TEXEL // lavapipe loads push constants lane by lane, anew at every use
layout(constant_id = 13) const uint rows = 1;
layout(constant_id = 14) const uint columns = 1;
layout(constant_id = 15) const uint depth = 1;
#define LF_SHAPE pushed_rows, pushed_columns, pushed_depth
#else
#define LF_SHAPE rows, columns, depth
#endif
#ifndef LF_PRODUCT_RATES // more push constants
#define LF_PRODUCT_RATES
#endif
layout(push_constant) uniform Push { uint step, LF_SHAPE; float alpha; LF_PRODUCT_RATES };

// One quad of the result, of which column `column` and row `row` are inside.
void store(uint row, uint column, vec4 sum);

vec4 sum[ROWS * QUADS];

// Multiplied and added in one, said so: a compiler that did it in one cut and not in the next would give other bits.
void add_product(uint i, float left_word, vec4 right_row)
{
    precise vec4 next = fma(vec4(left_word), right_row, sum[i]);
    sum[i] = next;
}

#if LF_PRODUCT == LF_LEFT_TURNED
const uint DEPTH_STEP = 1;
#else
const uint DEPTH_STEP = LEFT_QUADS ? 4 : 1; // the factors turned towards the depth are read four deep
#endif

#if LF_PRODUCT == LF_RIGHT_TURNED
// right[k … k+3][column … column+3]; only the first row counts where DEPTH_STEP is 1.
mat4 load_right(uint k, uint column)
{
    mat4 turned;
    for (uint i = 0; i < 4; i++) {
        uint at = min(column + i, columns - 1) * depth + k;
        turned[i] = RIGHT_QUADS ? LF_LOAD4(right, at / 4) : vec4(LF_LOAD(right, at));
    }
    return transpose(turned);
}
#else
// right[k][column … column+3]
vec4 load_right(uint k, uint column)
{
    return LF_LOAD_QUAD(RIGHT_QUADS, right, k * columns + column, column, columns);
}
#endif

// Adds what DEPTH_STEP neighbours of the depth, from k on, contribute. Columns are those of the quads, inside.
void add_step(uint k, uint first_row, uint column[QUADS])
{
#if LF_PRODUCT == LF_LEFT_TURNED
    vec4 left_part[ROWS / 4]; // rows along the vector
    [[unroll]] for (uint i = 0; i < ROWS / 4; i++) {
        uint row = min(first_row + i * 4, LEFT_QUADS ? rows - 4 : rows - 1);
        left_part[i] = LF_LOAD_QUAD(LEFT_QUADS, left, k * rows + row, row, rows);
    }
#define LEFT(i, d) left_part[i / 4][i % 4]
#else
    vec4 left_part[ROWS]; // depth along the vector
    [[unroll]] for (uint i = 0; i < ROWS; i++) {
        uint at = min(first_row + i, rows - 1) * depth + k;
        left_part[i] = LEFT_QUADS ? LF_LOAD4(left, at / 4) : vec4(LF_LOAD(left, at));
    }
#define LEFT(i, d) left_part[i][d]
#endif
    [[unroll]] for (uint q = 0; q < QUADS; q++) {
#if LF_PRODUCT == LF_RIGHT_TURNED
        mat4 right_part = load_right(k, column[q]);
#endif
        [[unroll]] for (uint d = 0; d < DEPTH_STEP; d++) {
#if LF_PRODUCT == LF_RIGHT_TURNED
            vec4 right_row = right_part[d];
#else
            vec4 right_row = load_right(k + d, column[q]);
#endif
            [[unroll]] for (uint i = 0; i < ROWS; i++)
                add_product(i * QUADS + q, LEFT(i, d), right_row);
        }
    }
}

#ifdef LF_TEXEL
// Adds what LANES neighbours of the depth contribute.
void add_block(uint k, uint first_row, uint column[QUADS])
{
    const uint LANES = gl_WorkGroupSize.x;
    uint lane = gl_LocalInvocationID.x;
    vec4 right_rows[LANES * QUADS];
    [[unroll]] for (uint q = 0; q < QUADS; q++) {
#if LF_PRODUCT == LF_RIGHT_TURNED
        [[unroll]] for (uint d = 0; d < LANES; d += 4) {
            mat4 turned;
            [[unroll]] for (uint i = 0; i < 4; i++) {
                uint row = min(column[q] + i, columns - 1);
                turned[i] = LF_LOAD_QUAD(RIGHT_QUADS, right, row * depth + k + d, k + d, depth);
            }
            turned = transpose(turned);
            [[unroll]] for (uint i = 0; i < 4; i++)
                right_rows[(d + i) * QUADS + q] = turned[i];
        }
#else
        [[unroll]] for (uint d = 0; d < LANES; d++)
            right_rows[d * QUADS + q] = load_right(k + d, column[q]);
#endif
    }
#if LF_PRODUCT == LF_LEFT_TURNED
    [[unroll]] for (uint group = 0; group < ROWS; group += 4) { // a lane has one row of the factor, four wide
        uint row = min(first_row + group, LEFT_QUADS ? rows - 4 : rows - 1);
        vec4 part = LF_LOAD_QUAD(LEFT_QUADS, left, (k + lane) * rows + row, row, rows);
#define LEFT_OF_LANES(i, d) subgroupShuffle(part[i], d)
        [[unroll]] for (uint i = 0; i < 4; i++)
#else
    [[unroll]] for (uint group = 0; group < ROWS; group += LANES) { // a lane has one row of the factor, LANES wide
        uint row = min(first_row + group + lane, rows - 1);
        vec4 part[LANES / 4];
        [[unroll]] for (uint i = 0; i < LANES / 4; i++)
            part[i] = LF_LOAD_QUAD(LEFT_QUADS, left, row * depth + k + i * 4, k + i * 4, depth);
#define LEFT_OF_LANES(i, d) subgroupShuffle(part[d / 4][d % 4], i)
        [[unroll]] for (uint i = 0; i < LANES; i++)
#endif
            [[unroll]] for (uint d = 0; d < LANES; d++) {
                float left_word = LEFT_OF_LANES(i, d);
                [[unroll]] for (uint q = 0; q < QUADS; q++)
                    add_product((group + i) * QUADS + q, left_word, right_rows[d * QUADS + q]);
            }
    }
}
#endif

void main()
{
    const uint LANES = gl_WorkGroupSize.x;
    uint first_row = (gl_WorkGroupID.y * gl_WorkGroupSize.y + gl_LocalInvocationID.y) * ROWS;
    uint first_column = (gl_WorkGroupID.x * LANES * QUADS + gl_LocalInvocationID.x) * 4;

    uint column[QUADS]; // inside the matrix, whatever the lane
    [[unroll]] for (uint q = 0; q < QUADS; q++)
        column[q] = min(first_column + q * LANES * 4, RESULT_QUADS ? columns - 4 : columns - 1);

    [[unroll]] for (uint i = 0; i < ROWS * QUADS; i++)
        sum[i] = vec4(0);
    uint k = 0;
#ifdef LF_TEXEL
    for (; k < depth / LANES * LANES; k += LANES)
        add_block(k, first_row, column);
#endif
    for (; k < depth; k += DEPTH_STEP)
        add_step(k, first_row, column);

#ifdef LF_TEXEL
    // One store() in the code for all sums: unrolled, it would not fit a processor's instruction cache. It takes a copy,
    // since an array that is indexed with a variable lives in memory.
    vec4 stored[ROWS * QUADS];
    [[unroll]] for (uint i = 0; i < ROWS * QUADS; i++)
        stored[i] = sum[i];
    [[dont_unroll]] for (uint i = 0; i < ROWS * QUADS; i++) {
        uint row = first_row + i / QUADS, at = first_column + i % QUADS * LANES * 4;
        if (row < rows && at < columns)
            store(row, at, stored[i]);
    }
#else
    [[unroll]] for (uint q = 0; q < QUADS; q++) {
        uint at = first_column + q * LANES * 4;
        [[unroll]] for (uint i = 0; i < ROWS; i++)
            if (at < columns && first_row + i < rows)
                store(first_row + i, at, sum[i * QUADS + q]);
    }
#endif

#ifdef LF_COLUMN_SUMS
    // A loop of its own, which all but the first rows skip, costs less than one more sum in the loop above.
    for (uint q = 0; q < QUADS; q++) {
        uint at = first_column + q * LANES * 4;
        vec4 column_sum = vec4(0);
        for (uint k = first_row == 0 && at < columns ? 0 : depth; k < depth; k++)
            column_sum += LF_LOAD_QUAD(RIGHT_QUADS, right, k * columns + at, at, columns);
        if (first_row == 0 && at < columns)
            store_column_sum(at, column_sum);
    }
#endif
}
