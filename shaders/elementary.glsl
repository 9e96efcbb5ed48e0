// Functions that GLSL lacks, without cancellation near 0. All let NaN through.

// e^x - 1 for x <= 0, without cancellation near 0 (Taylor to the sixth order there).
float lf_expm1(float x)
{
    float series = x * (1 + x / 2 * (1 + x / 3 * (1 + x / 4 * (1 + x / 5 * (1 + x / 6)))));
    return x > -0.25 ? series : exp(x) - 1;
}

// log(1 + e) for 0 <= e <= 1: 2 artanh(e / (2 + e)), whose argument is at most 1/3, to the 13th order.
float lf_log1p(float e)
{
    float s = e / (2 + e), t = s * s;
    return 2 * s * (1 + t * (1. / 3 + t * (1. / 5 + t * (1. / 7 + t * (1. / 9 + t * (1. / 11 + t / 13))))));
}

float lf_sigmoid(float x)
{
    float e = exp(-abs(x));
    return (x >= 0 ? 1 : e) / (1 + e);
}
