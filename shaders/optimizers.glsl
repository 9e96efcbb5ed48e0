// The optimizers' formulas, four numbers at a time: a gradient moves `param` and its moments. The including kernel
// declares, before, the specialization constants LIMITED (clip_value counts), DECOUPLED, MOMENTUM and NESTEROV, and the
// push constants clip_value, momentum, beta1, beta2, rest1, rest2 (1 - beta) and eps. `precise` throughout, so that a
// formula gives equal bits wherever it stands.

// clamp(g, ±clip_value); NaN stays NaN
vec4 lf_limited(vec4 g)
{
    if (LIMITED) {
        g = mix(g, vec4(clip_value), greaterThan(g, vec4(clip_value)));
        g = mix(g, vec4(-clip_value), lessThan(g, vec4(-clip_value)));
    }
    return g;
}

// g += decay param; m = momentum m + g; param -= lr (m, or g + momentum m if NESTEROV, or g without MOMENTUM)
void lf_sgd(lf_schedule_row now, float decay, vec4 g, inout vec4 param, inout vec4 m)
{
    precise vec4 change = g + decay * param;
    if (MOMENTUM) {
        precise vec4 velocity = momentum * m + change;
        m = velocity;
        change = NESTEROV ? change + momentum * velocity : velocity;
    }
    precise vec4 moved = param - now.lr * change;
    param = moved;
}

// g += decay param; m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g²;
// param -= step_size m / (sqrt(v) inv_sqrt_correct2 + eps)
// DECOUPLED: param *= 1 - lr decay at first, and g stays
void lf_adam(lf_schedule_row now, float decay, vec4 g, inout vec4 param, inout vec4 m, inout vec4 v)
{
    precise vec4 gradient = g, from = param;
    if (DECOUPLED)
        from = param * (1 - now.lr * decay);
    else
        gradient = g + decay * param;
    precise vec4 mean = beta1 * m + rest1 * gradient, square = beta2 * v + rest2 * gradient * gradient;
    precise vec4 moved = from - now.step_size * mean / (sqrt(square) * now.inv_sqrt_correct2 + eps);
    m = mean;
    v = square;
    param = moved;
}

// g += decay param; v = beta2 v + (1 - beta2) g²; d = g / (sqrt(v) + eps); m = momentum m + d;
// param -= lr m, or lr d without MOMENTUM
void lf_rmsprop(lf_schedule_row now, float decay, vec4 g, inout vec4 param, inout vec4 m, inout vec4 v)
{
    precise vec4 gradient = g + decay * param, square = beta2 * v + rest2 * gradient * gradient;
    precise vec4 change = gradient / (sqrt(square) + eps);
    if (MOMENTUM) {
        change = change + momentum * m;
        m = change;
    }
    precise vec4 moved = param - now.lr * change;
    v = square;
    param = moved;
}

// 0 of 0, NaN of NaN
vec4 lf_sign(vec4 x)
{
    return mix(mix(x, vec4(1), greaterThan(x, vec4(0))), vec4(-1), lessThan(x, vec4(0)));
}

// d = sign(beta1 m + (1 - beta1) g); param -= lr (d + decay param); m = beta2 m + (1 - beta2) g
void lf_lion(lf_schedule_row now, float decay, vec4 g, inout vec4 param, inout vec4 m)
{
    precise vec4 mean = beta1 * m + rest1 * g, next = beta2 * m + rest2 * g;
    precise vec4 moved = param - now.lr * (lf_sign(mean) + decay * param);
    m = next;
    param = moved;
}
