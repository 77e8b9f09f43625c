# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
# cython: freethreading_compatible=True
"""Tokens to wire bytes and back; hskv/wire/_codec.py is the reference, with the same results."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.list cimport PyList_Append
from cpython.ref cimport Py_INCREF
from cpython.tuple cimport PyTuple_GET_ITEM, PyTuple_GET_SIZE, PyTuple_New, PyTuple_SET_ITEM
from libc.string cimport memchr, memcpy

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>

    /* Bytes are looked at a step at a time: `plain_to_escape` and `plain_to_unescape` tell how many
       of the first STEP need nothing done. */
    #if defined(__SSE2__)
    #include <emmintrin.h>
    #define STEP 16

    static inline int first(int mask) {
        return mask ? __builtin_ctz(mask) : STEP;
    }

    static inline int plain_to_escape(const unsigned char *bytes) {
        __m128i step = _mm_loadu_si128((const __m128i *)bytes);
        __m128i low = _mm_min_epu8(step, _mm_set1_epi8(0x0f));
        return first(_mm_movemask_epi8(_mm_cmpeq_epi8(low, step)));
    }

    static inline int plain_to_unescape(const unsigned char *bytes) {
        __m128i step = _mm_loadu_si128((const __m128i *)bytes);
        return first(_mm_movemask_epi8(_mm_cmpeq_epi8(step, _mm_set1_epi8(0x01))));
    }
    #else
    #define STEP 8
    #define ONES ((uint64_t)0x0101010101010101)
    #define TOPS ((uint64_t)0x8080808080808080)

    /* The lowest byte that is marked by its top bit; marks above it may be wrong. */
    static inline int first(uint64_t marks) {
    #if defined(__GNUC__) && defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
        return marks ? __builtin_ctzll(marks) >> 3 : STEP;
    #else
        return marks ? 0 : STEP;
    #endif
    }

    static inline int plain_to_escape(const unsigned char *bytes) {
        uint64_t step;
        memcpy(&step, bytes, STEP);
        return first((step - ONES * 0x10) & ~step & TOPS);
    }

    static inline int plain_to_unescape(const unsigned char *bytes) {
        uint64_t step;
        memcpy(&step, bytes, STEP);
        step ^= ONES;
        return first((step - ONES) & ~step & TOPS);
    }
    #endif

    /* Where compilers have it, large values go 64 bytes at a time: one bit for each byte that is to
       be changed, and a run between two of them is copied without asking how long it is. The
       branches that are left are told in advance, which doubles the speed on random bytes. */
    #if defined(__SSE2__) && defined(__GNUC__)
    #define BLOCK 64
    #define BLOCKS 1

    static inline uint64_t mask_of(const unsigned char *bytes, __m128i most, __m128i least) {
        uint64_t mask = 0;
        for (int part = 0; part < 4; part++) {
            __m128i step = _mm_loadu_si128((const __m128i *)(bytes + 16 * part));
            __m128i bounded = _mm_max_epu8(_mm_min_epu8(step, most), least);
            mask |= (uint64_t)_mm_movemask_epi8(_mm_cmpeq_epi8(bounded, step)) << 16 * part;
        }
        return mask;
    }
    #else
    #define BLOCK 64
    #define BLOCKS 0
    #endif

    /* How many of n bytes are below 0x10: a loop that compilers turn into vectors. */
    static size_t count_controls(const unsigned char *bytes, size_t n) {
        size_t count = 0;
        for (size_t i = 0; i < n; i++)
            count += bytes[i] < 0x10;
        return count;
    }

    static size_t count_escapes(const unsigned char *bytes, size_t n) {
        size_t count = 0;
        for (size_t i = 0; i < n; i++)
            count += bytes[i] == 0x01;
        return count;
    }

    /* Writes n bytes and one more for each that is below 0x10: as many as `room`. */
    static void escape(const unsigned char *in, size_t n, unsigned char *out, size_t room) {
        const unsigned char *end = in + n, *out_end = out + room;
    #if BLOCKS
        const __m128i most = _mm_set1_epi8(0x0f), least = _mm_setzero_si128();
        while (end - in >= 2 * BLOCK && out_end - out >= 3 * BLOCK) {
            uint64_t mask = mask_of(in, most, least);
            const unsigned char *run = in;
            in += BLOCK;
            for (; mask; mask &= mask - 1) {
                const unsigned char *control = in - BLOCK + __builtin_ctzll(mask);
                memcpy(out, run, BLOCK);
                out += control - run;
                *out++ = 0x01;
                *out++ = *control + 0x40;
                run = control + 1;
            }
            memcpy(out, run, BLOCK);
            out += in - run;
        }
    #endif
        while (in < end) {
            if (end - in >= STEP && out_end - out >= STEP) {
                /* More than is plain is written; what follows overwrites it. */
                int plain = plain_to_escape(in);
                memcpy(out, in, STEP);
                in += plain, out += plain;
                if (plain == STEP)
                    continue;
            }
            if (*in < 0x10) {
                *out++ = 0x01;
                *out++ = *in++ + 0x40;
            } else
                *out++ = *in++;
        }
    }

    /* Writes n bytes less one for each 0x01: as many as `room`. -1 for an escape that is none. */
    static int unescape(const unsigned char *in, size_t n, unsigned char *out, size_t room) {
        const unsigned char *end = in + n, *out_end = out + room;
    #if BLOCKS
        const __m128i one = _mm_set1_epi8(0x01);
        while (end - in > 2 * BLOCK && out_end - out >= 2 * BLOCK) {
            uint64_t mask = mask_of(in, one, one);
            const unsigned char *run = in, *next = in + BLOCK;
            int wrong = 0;
            for (; mask; mask &= mask - 1) {
                const unsigned char *escape = in + __builtin_ctzll(mask);
                memcpy(out, run, BLOCK);
                out += escape - run;
                wrong |= (escape[1] & 0xf0) ^ 0x40;
                *out++ = escape[1] - 0x40;
                run = escape + 2;
            }
            if (wrong)
                return -1;
            /* The last byte may be an escape, and the byte behind it then be done too. */
            in = run > next ? run : next;
            memcpy(out, run, BLOCK);
            out += in - run;
        }
    #endif
        while (in < end) {
            if (end - in >= STEP && out_end - out >= STEP) {
                int plain = plain_to_unescape(in);
                memcpy(out, in, STEP);
                in += plain, out += plain;
                if (plain == STEP)
                    continue;
            }
            if (*in != 0x01) {
                *out++ = *in++;
                continue;
            }
            /* A second 0x01 is no escape either, so that the count of them stays right. */
            if (end - in < 2 || in[1] < 0x40 || in[1] > 0x4f)
                return -1;
            *out++ = in[1] - 0x40;
            in += 2;
        }
        return 0;
    }

    /* More values than the server takes, and the longest integer of 64 bits with its length. */
    #define MOST_INTEGERS 64
    #define MOST_DIGITS 24

    static const char PAIRS[] =
        "00010203040506070809101112131415161718192021222324252627282930313233343536373839"
        "40414243444546474849505152535455565758596061626364656667686970717273747576777879"
        "8081828384858687888990919293949596979899";

    /* Writes a number in decimal and gives the count of its bytes, at most 20. */
    static size_t write_integer(long long number, unsigned char *out) {
        unsigned char buffer[20], *digit = buffer + 20;
        unsigned long long rest = number < 0 ? -(unsigned long long)number : number;
        for (; rest >= 10; rest /= 100)
            memcpy(digit -= 2, PAIRS + rest % 100 * 2, 2);
        if (rest || digit == buffer + 20)
            *--digit = '0' + rest;
        if (number < 0)
            *out = '-', out++;
        memcpy(out, digit, buffer + 20 - digit);
        return buffer + 20 - digit + (number < 0);
    }
    """
    size_t count_controls(const unsigned char *data, size_t n) nogil
    size_t write_integer(long long number, unsigned char *out) nogil
    const int MOST_INTEGERS
    const int MOST_DIGITS
    size_t count_escapes(const unsigned char *data, size_t n) nogil
    void escape(const unsigned char *data, size_t n, unsigned char *out, size_t room) nogil
    int unescape(const unsigned char *data, size_t n, unsigned char *out, size_t room) nogil


cdef inline const unsigned char *_start(bytes data) noexcept:
    return <const unsigned char *> PyBytes_AS_STRING(data)


def encode_token(token):
    if not isinstance(token, bytes):
        raise _no_token(token)
    cdef bytes cell = <bytes> token
    cdef Py_ssize_t size = PyBytes_GET_SIZE(cell)
    cdef size_t controls = count_controls(_start(cell), size)
    if controls == 0:
        return token
    encoded = PyBytes_FromStringAndSize(NULL, size + controls)
    escape(_start(cell), size, <unsigned char *> PyBytes_AS_STRING(encoded), size + controls)
    return encoded


cdef object _no_token(object token):
    return TypeError(f"a token is bytes or None, not {type(token).__name__}")


def encode_tokens(tokens):
    # A copy, since another thread could change a list meanwhile.
    cdef tuple cells = tuple(tokens)
    cdef Py_ssize_t size = len(cells) - 1 if cells else 0
    cdef bytes cell
    cdef unsigned char *out
    cdef size_t room
    for each in cells:
        if each is None:
            size += 1
        elif isinstance(each, bytes):
            cell = <bytes> each
            size += PyBytes_GET_SIZE(cell) + count_controls(_start(cell), PyBytes_GET_SIZE(cell))
        else:
            raise _no_token(each)
    encoded = PyBytes_FromStringAndSize(NULL, size)
    out = <unsigned char *> PyBytes_AS_STRING(encoded)
    cdef bint first = True
    for each in cells:
        if not first:
            out[0] = c"\t"
            out += 1
        first = False
        if each is None:
            out[0] = 0
            out += 1
        else:
            cell = <bytes> each
            size = PyBytes_GET_SIZE(cell)
            room = size + count_controls(_start(cell), size)
            escape(_start(cell), size, out, room)
            out += room
    return encoded


def fill(bytes template not None, values):
    return _filled(template, tuple(values))


def fill_each(bytes template not None, rows):
    return [_filled(template, tuple(values)) for values in rows]


cdef bytes _filled(bytes template, tuple values):
    """Goes through the template twice: to know the size, and to write."""
    cdef unsigned char digits[1536]  # MOST_INTEGERS * MOST_DIGITS
    cdef Py_ssize_t room = PyBytes_GET_SIZE(template)
    cdef const unsigned char *limit = _start(template) + room
    cdef const unsigned char *start = _start(template)
    cdef const unsigned char *place
    cdef unsigned char *digit = digits
    cdef Py_ssize_t used = 0, count = PyTuple_GET_SIZE(values), size
    while True:
        place = _next_place(start, limit)
        if place == NULL:
            break
        start = place + 2
        if used == count or used == MOST_INTEGERS:
            raise TypeError("a template has more places than values")
        value = <object> PyTuple_GET_ITEM(values, used)
        used += 1
        if place[1] == c"d":
            # Each has its place of one size, where its length stands first.
            size = write_integer(_integer(value), digit + 1)
            digit[0] = <unsigned char> size
            digit += MOST_DIGITS
        elif isinstance(value, bytes):
            size = PyBytes_GET_SIZE(value)
            size += count_controls(_start(<bytes> value), size)
        else:
            raise _no_token(value)
        room += size - 2
    if used < count:
        raise TypeError("a template has fewer places than values")
    filled = PyBytes_FromStringAndSize(NULL, room)
    cdef unsigned char *out = <unsigned char *> PyBytes_AS_STRING(filled)
    start, digit = _start(template), digits
    for used in range(count):
        place = _next_place(start, limit)
        memcpy(out, start, place - start)
        out += place - start
        start = place + 2
        if place[1] == c"d":
            size = digit[0]
            memcpy(out, digit + 1, size)
            digit += MOST_DIGITS
        else:
            value = <object> PyTuple_GET_ITEM(values, used)
            room = PyBytes_GET_SIZE(value)
            size = room + count_controls(_start(<bytes> value), room)
            escape(_start(<bytes> value), room, out, size)
        out += size
    memcpy(out, start, limit - start)
    return filled


cdef inline const unsigned char *_next_place(
    const unsigned char *start, const unsigned char *limit
) except? NULL:
    """Where a %b or %d stands, NULL behind the last."""
    place = <const unsigned char *> memchr(start, c"%", limit - start)
    if place != NULL and (limit - place < 2 or (place[1] != c"b" and place[1] != c"d")):
        raise ValueError("a template has places %b and %d only")
    return place


cdef inline long long _integer(object value) except? -1:
    if not isinstance(value, int):
        raise TypeError(f"%d takes an integer, not {type(value).__name__}")
    return value


cdef object _token(const unsigned char *start, Py_ssize_t size, bint escaped):
    """A token; not `escaped` where its line is known to have no escape."""
    if size == 1 and start[0] == 0:
        return None
    cdef size_t escapes = 0
    # Most tokens have none: memchr says so soonest.
    if escaped and memchr(start, 0x01, size) != NULL:
        escapes = count_escapes(start, size)
    if escapes == 0:
        return PyBytes_FromStringAndSize(<const char *> start, size)
    if escapes * 2 > <size_t> size:
        raise _malformed()
    token = PyBytes_FromStringAndSize(NULL, size - escapes)
    cdef unsigned char *out = <unsigned char *> PyBytes_AS_STRING(token)
    if unescape(start, size, out, size - escapes) < 0:
        raise _malformed()
    return token


cdef object _malformed():
    return ValueError("malformed escape: 0x01 is not followed by 0x40 to 0x4f")


cdef inline const unsigned char *_end(const unsigned char *start, const unsigned char *limit):
    """The TAB after a token, or the end of the line."""
    found = <const unsigned char *> memchr(start, c"\t", limit - start)
    return limit if found == NULL else found


def decode_tokens(bytes line not None):
    return _tokens(_start(line), _start(line) + PyBytes_GET_SIZE(line))


cdef list _tokens(const unsigned char *start, const unsigned char *limit):
    cdef const unsigned char *end
    cdef list tokens = []
    while True:
        end = _end(start, limit)
        PyList_Append(tokens, _token(start, end - start, True))
        if end == limit:
            return tokens
        start = end + 1


def decode_rows(bytes data not None):
    cdef const unsigned char *start = _start(data)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
    if size < 3 or start[0] != c"0" or start[1] != c"\t":
        return None
    cdef const unsigned char *limit = <const unsigned char *> memchr(start, c"\n", size)
    if limit != start + size - 1:
        return None
    cdef const unsigned char *end = _end(start + 2, limit)
    try:
        return _rows(end, limit, _count(start + 2, end - start - 2)) or None
    except ValueError:
        return None


def decode_replies(data):
    cdef Py_buffer view
    if isinstance(data, bytes):
        return _replies(_start(<bytes> data), PyBytes_GET_SIZE(data))
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        return _replies(<const unsigned char *> view.buf, view.len)
    finally:
        PyBuffer_Release(&view)


cdef tuple _replies(const unsigned char *data, Py_ssize_t size):
    cdef const unsigned char *start = data
    cdef const unsigned char *limit = start + size
    cdef const unsigned char *end
    cdef list replies = []
    while start < limit:
        end = <const unsigned char *> memchr(start, c"\n", limit - start)
        if end == NULL:
            break
        PyList_Append(replies, _decoded(start, end))
        start = end + 1
    return replies, start - data


cdef object _decoded(const unsigned char *start, const unsigned char *limit):
    cdef const unsigned char *end = _end(start, limit)
    cdef const unsigned char *first = end
    if end == limit:
        raise ValueError("a reply has no number of columns")
    end = _end(first + 1, limit)
    cdef Py_ssize_t columns = _count(first + 1, end - first - 1)
    if end != limit and first == start + 1 and start[0] == c"0":
        return _rows(end, limit, columns)
    words = [tuple(_tokens(end + 1, limit))] if end != limit else []
    return _token(start, first - start, True), columns, words


cdef list _rows(const unsigned char *end, const unsigned char *limit, Py_ssize_t columns):
    """What stands from `end` on, a TAB before each cell."""
    cdef const unsigned char *start
    cdef list rows = []
    cdef tuple row
    cdef Py_ssize_t column
    cdef bint escaped = memchr(end, 0x01, limit - end) != NULL
    while end != limit:
        if columns == 0:
            raise ValueError("a reply of no columns has values")
        row = PyTuple_New(columns)
        for column in range(columns):
            if end == limit:
                raise ValueError("the last row of a reply lacks values")
            start = end + 1
            end = _end(start, limit)
            cell = _token(start, end - start, escaped)
            Py_INCREF(cell)
            PyTuple_SET_ITEM(row, column, cell)
        PyList_Append(rows, row)
    return rows


cdef Py_ssize_t _count(const unsigned char *start, Py_ssize_t size) except -1:
    """Without leading zeros, and as far as the reference goes."""
    cdef Py_ssize_t count = 0
    cdef Py_ssize_t place
    if 1 <= size <= 4 and (size == 1 or start[0] != c"0"):
        for place in range(size):
            if not c"0" <= start[place] <= c"9":
                break
            count = count * 10 + start[place] - c"0"
        else:
            if count <= 4096:
                return count
    raise ValueError("a reply has no number of columns")
