package jsonwalk_test

import (
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"varve/jsonwalk"
)

// whole reads a text that is one value.
func whole(text string) (jsonwalk.Value, bool) {
	r := jsonwalk.NewReader([]byte(text), 0)
	v, err := r.Value()
	return v, err == nil && r.Peek() == 0 && r.Pos() == len(text)
}

// Texts are taken or refused as the standard has it, but for what the package comment tells.
func TestValue(t *testing.T) {
	good := func(text string, kind jsonwalk.Kind) {
		t.Helper()
		v, ok := whole(text)
		require.True(t, ok, text)
		require.Equal(t, kind, v.Kind, text)
	}
	bad := func(text string) {
		t.Helper()
		_, ok := whole(text)
		require.False(t, ok, text)
	}
	good(`"a"`, jsonwalk.String)
	good(` -1.5e+7 `, jsonwalk.Number)
	good(`0`, jsonwalk.Number)
	good(`NaN`, jsonwalk.NotFinite)
	good(`-Infinity`, jsonwalk.NotFinite)
	good(`{"a":[1,{"b":[]},"]"],"c":{}}`, jsonwalk.Object)
	good(`[ ]`, jsonwalk.Array)
	good(`null`, jsonwalk.Null)
	good(strings.Repeat("[", jsonwalk.DepthMax)+strings.Repeat("]", jsonwalk.DepthMax), jsonwalk.Array)
	for _, text := range []string{
		``, `"`, `"a`, "\"\x01\"", `"\x"`, `"\u12g4"`, `01`, `-`, `1.`, `1e`, `.5`, `+1`, `tru`, `nul`, `[1,]`, `{"a":1,}`, `{a:1}`, `{"a" 1}`, `{"a":}`, `[1 2]`, `[}`, `{]`, `[`, `{`, `{"a":[1}`, `1 2`, `-Inf`,
		strings.Repeat("[", jsonwalk.DepthMax+1) + strings.Repeat("]", jsonwalk.DepthMax+1), strings.Repeat("[", 1<<20),
	} {
		bad(text)
	}
}

// Escapes stand for what the standard says, and half a pair of surrogates for the replacement character.
func TestText(t *testing.T) {
	f := func(text, want string) {
		t.Helper()
		v, ok := whole(text)
		require.True(t, ok, text)
		require.Equal(t, want, v.Text())
		require.True(t, v.Is(want))
		require.False(t, v.Is(want+"x"))
	}
	f(`"plain é"`, "plain é")
	f(`"\"\\\/\b\f\n\r\t"`, "\"\\/\b\f\n\r\t")
	f(`"\u00e9\ud83d\ude00"`, "é😀")
	f(`"\ud83dx\ude00"`, "\ufffdx\ufffd")
	f(`"\ud83d"`, "\ufffd")
	f(`"\ud83d\u0041"`, "\ufffdA")
	f(`17`, "17")
}

// Members and elements are walked one by one.
func TestWalk(t *testing.T) {
	r := jsonwalk.NewReader([]byte(`x {"a" : 1 , "b":[true, false]}`), 1)
	require.False(t, r.Open('['))
	require.True(t, r.Open('{'))
	var seen []string
	for first := true; ; first = false {
		more, err := r.Next(first, '}')
		require.NoError(t, err)
		if !more {
			break
		}
		key, err := r.Key()
		require.NoError(t, err)
		v, err := r.Value()
		require.NoError(t, err)
		seen = append(seen, key.Text()+"="+v.Text())
	}
	require.Equal(t, []string{"a=1", "b=[true, false]"}, seen)
}

// Numbers are the nearest float64, whatever their form.
func TestFloat(t *testing.T) {
	for _, text := range []string{
		"0", "-0", "1", "+1", "007", ".5", "5.", "1.25", "-1e3", "1E-3", "123456789012345", "1234567890123456789", "0.1", "1e22", "1e23", "1e-22", "1e-30", "4.9e-324", "1e-400", "1.7976931348623157e308",
		"0.000000000000000000000000000001", "9007199254740993", "123456789012345678901234567890", "0000000000000000000000001.5",
	} {
		want, err := strconv.ParseFloat(text, 64)
		require.NoError(t, err)
		got, ok := jsonwalk.Float([]byte(text))
		require.True(t, ok, text)
		require.Equal(t, math.Float64bits(want), math.Float64bits(got), text)
	}
	for _, text := range []string{"1e999", "-1e999", "1e99999999999999999999"} {
		got, ok := jsonwalk.Float([]byte(text))
		require.True(t, ok, text)
		require.True(t, math.IsInf(got, 0), text)
	}
	for _, text := range []string{"", "-", "+", ".", "e5", "1e", "1e+", "0x10", "NaN", "Inf", "1_000", "1.2.3", " 1", "1 ", "--1", "1f"} {
		_, ok := jsonwalk.Float([]byte(text))
		require.False(t, ok, text)
	}
}

// FuzzValue shows that every text of encoding/json is one here with the same strings, that nothing else is one but what the package comment
// tells, and that reading ends.
func FuzzValue(f *testing.F) {
	for _, text := range []string{`{"a":[1,{"b":null}],"c":"\ud83d\ude00"}`, `[1e5,-0.5,true]`, `"\u00e9"`, `[NaN]`, `[[[[`, `{"":""}`, "\"\xff\""} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		v, ok := whole(text)
		if strings.Contains(text, "NaN") || strings.Contains(text, "Infinity") || strings.Count(text, "[")+strings.Count(text, "{") > jsonwalk.DepthMax {
			return
		}
		require.Equal(t, json.Valid([]byte(text)), ok, text)
		if ok && v.Kind == jsonwalk.String {
			var want string
			require.NoError(t, json.Unmarshal([]byte(text), &want))
			require.Equal(t, want, strings.ToValidUTF8(string([]rune(v.Text())), "\ufffd"))
		}
	})
}

// FuzzFloat shows that numbers are those of strconv, and that nothing else is one.
func FuzzFloat(f *testing.F) {
	for _, text := range []string{"1.5", "-1e-7", "9007199254740993", "1e999", "0x1p3", ".", "1_0", "00.10"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, ok := jsonwalk.Float([]byte(text))
		want, err := strconv.ParseFloat(text, 64)
		if strings.ContainsAny(text, "xXnNiIpP_") {
			require.False(t, ok)
			return
		}
		require.Equal(t, err == nil || math.IsInf(want, 0), ok, text)
		if ok {
			require.Equal(t, math.Float64bits(want), math.Float64bits(got), text)
		}
	})
}
