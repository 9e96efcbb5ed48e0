// Rows of data as they are stored, for includers that declare before: the operand `data`, and the constants BITS (of an
// element: 8, 16, 32), KIND (0 unsigned, 1 signed, 2 float) and QUADS (rows are multiples of four elements).
float lf_convert(uint bits)
{
    return KIND == 2 ? uintBitsToFloat(bits) : KIND == 1 ? float(int(bits)) : float(bits);
}

// Element `at` of `word`, which holds 32 / BITS elements of which `at` is one.
float lf_unpack(uint word, uint at)
{
    int shift = int(at % (32 / BITS) * BITS);
    if (BITS == 32)
        return lf_convert(word);
    return KIND == 1 ? lf_convert(uint(bitfieldExtract(int(word), shift, int(BITS))))
                     : lf_convert(bitfieldExtract(word, shift, int(BITS)));
}

// Four neighbours of a row, as numbers; those past its end repeat the last.
vec4 lf_stored4(uint row, uint feature, uint features)
{
    vec4 value;
    uint word = 0;
    for (uint i = 0; i < 4; i++) {
        uint at = row * features + min(feature + i, features - 1);
        if (!QUADS || i * BITS % 32 == 0)
            word = LF_LOAD(data, at / (32 / BITS));
        value[i] = lf_unpack(word, at);
    }
    return value;
}
