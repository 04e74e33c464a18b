package influxdb_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"varve/arrival"
	"varve/ingest"
	"varve/ingest/influxdb"
	"varve/ingest/ingesttest"
)

// TestNames shows how lines become series. Every body is sent twice, so that the second
// time all keys are known, and must not be taken for others.
func TestNames(t *testing.T) {
	for name, c := range map[string]struct {
		o      influxdb.Options
		target string // "" for /write
		body   string
		want   []string
		text   string // of a refusal
	}{
		"measurement and field":  {body: "cpu,host=a user=1,system=2i 5000000", want: []string{`{__name__="cpu_system", host="a"} 5 2`, `{__name__="cpu_user", host="a"} 5 1`}},
		"only value":             {body: "temp,room=x value=21.5 5000000", want: []string{`{__name__="temp", room="x"} 5 21.5`}},
		"value beside others":    {body: "temp value=21.5,low=t 5000000", want: []string{`{__name__="temp_low"} 5 1`, `{__name__="temp_value"} 5 21.5`}},
		"value beside text":      {body: `temp value=21.5,state="ok" 5000000`, want: []string{`{__name__="temp"} 5 21.5`}},
		"one field, not value":   {body: "temp low=1 5000000", want: []string{`{__name__="temp_low"} 5 1`}},
		"both forms of value":    {body: "temp value=1 5000000\ntemp value=2,x=3 5000000", want: []string{`{__name__="temp"} 5 1`, `{__name__="temp_value"} 5 2`, `{__name__="temp_x"} 5 3`}},
		"value always appended":  {o: influxdb.Options{AppendValue: true}, body: "temp value=1 5000000", want: []string{`{__name__="temp_value"} 5 1`}},
		"separator":              {o: influxdb.Options{Separator: ":"}, body: "a b=1 5000000", want: []string{`{__name__="a:b"} 5 1`}},
		"prometheus":             {body: "prometheus,host=a,url=http://x:1/m up=1,value=2 5000000", want: []string{`{__name__="up", host="a", url="http://x:1/m"} 5 1`, `{__name__="value", host="a", url="http://x:1/m"} 5 2`}},
		"prometheus histogram":   {body: "prometheus,le=+Inf lat_bucket=3 5000000\nprometheus lat_sum=1.5,lat_count=3 5000000", want: []string{`{__name__="lat_bucket", le="+Inf"} 5 3`, `{__name__="lat_count"} 5 3`, `{__name__="lat_sum"} 5 1.5`}},
		"prometheus as others":   {o: influxdb.Options{BareMeasurements: []string{}}, body: "prometheus up=1 5000000", want: []string{`{__name__="prometheus_up"} 5 1`}},
		"another bare":           {o: influxdb.Options{BareMeasurements: []string{"my app"}}, body: `my\ app up=1 5000000`, want: []string{`{__name__="up"} 5 1`}},
		"cleaned":                {body: `a-b.c,t\ ag=v\ al\=\,,dé:x=ü x/y=1 5000000`, want: []string{`{__name__="a_b_c_x_y", d__x="ü", t_ag="v al=,"} 5 1`}},
		"leading digits":         {body: "1a,2b=c 3d=1 5000000", want: []string{`{_2b="c", __name__="_1a_3d"} 5 1`}},
		"colons stay":            {body: "job:rate a=1 5000000", want: []string{`{__name__="job:rate_a"} 5 1`}},
		"UTF-8 kept":             {o: influxdb.Options{Characters: influxdb.UTF8}, body: `a-b,t.x=v é=1 5000000`, want: []string{`{__name__="a-b_é", "t.x"="v"} 5 1`}},
		"escapes":                {o: influxdb.Options{Characters: influxdb.UTF8, Separator: "|"}, body: `m\,\ \=\x,k\,\ \==v\"\\w f\,\ \=\"=1 5000000`, want: []string{`{__name__="m, \\=\\x|f, =\"", "k, ="="v\\\"\\\\w"} 5 1`}},
		"a tag called __name__":  {body: "a,__name__=evil b=1 5000000", want: []string{`{__name__="a_b", exported___name__="evil"} 5 1`}},
		"two called __name__":    {body: "a,__name__=evil,exported___name__=b b=1 5000000", text: "two tags are both the label"},
		"tags collide":           {body: "a,x.y=1,x-y=2 b=1,c=2 5000000\nok b=1 5000000", want: []string{`{__name__="ok_b"} 5 1`}, text: `two tags are both the label "x_y"`},
		"fields collide":         {body: "a x.y=1,x-y=2,z=3 5000000", want: []string{`{__name__="a_x_y"} 5 1`, `{__name__="a_z"} 5 3`}, text: `fields x.y and x-y are both the metric "a_x_y"`},
		"fields collide later":   {body: "a x.y=1,z=1 5000000\na x-y=2 6000000\na x-y=3,z=2,x.y=4 7000000", want: []string{`{__name__="a_x_y"} 5 1`, `{__name__="a_x_y"} 6 2`, `{__name__="a_x_y"} 7 3`, `{__name__="a_z"} 5 1`, `{__name__="a_z"} 7 2`}, text: `unable to parse 'a x-y=3,z=2,x.y=4 7000000': fields x-y and x.y are both the metric "a_x_y"`},
		"escaped fields collide": {o: influxdb.Options{Characters: influxdb.UTF8}, body: "a x\"=1 5000000\na x\\\"=1 6000000\na x\"=1,x\\\"=2 7000000", want: []string{`{__name__="a_x\""} 5 1`, `{__name__="a_x\""} 6 1`, `{__name__="a_x\""} 7 1`}, text: "are both the metric"},
		"bare fields collide":    {body: "prometheus 1x=1 5000000\nprometheus _1x=2 6000000\nprometheus _1x=3,1x=4,1x=5 7000000", want: []string{`{__name__="_1x"} 5 1`, `{__name__="_1x"} 6 2`, `{__name__="_1x"} 7 3`}, text: `fields _1x and 1x are both the metric "_1x"`},
		"a digit between":        {body: "a 1x=1,_1x=2 5000000", want: []string{`{__name__="a_1x"} 5 1`, `{__name__="a__1x"} 5 2`}},
		"one field twice":        {body: "a x.y=1,x.y=2,x.z=3 5000000", want: []string{`{__name__="a_x_y"} 5 2`, `{__name__="a_x_z"} 5 3`}},
		"three of a name":        {body: "a é=1,b=2,ü=3,ü=4,-=5 5000000", want: []string{`{__name__="a__"} 5 1`, `{__name__="a_b"} 5 2`}, text: " dropped=3"},
		"text is left out":       {body: `a b="x",c=1 5000000`, want: []string{`{__name__="a_c"} 5 1`}},
		"text becomes labels":    {o: influxdb.Options{TextLabels: []string{"mode", "a b"}}, body: "a,x=y mode=\"on \\\"q\\\"\",c=1,a\\ b=\"z\",n=\"no\" 5000000\na,x=y mode=\"off\",c=2 6000000\na,x=y c=3 7000000", want: []string{`{__name__="a_c", a_b="z", mode="on \"q\"", x="y"} 5 1`, `{__name__="a_c", mode="off", x="y"} 6 2`, `{__name__="a_c", x="y"} 7 3`}},
		"numbers are no labels":  {o: influxdb.Options{TextLabels: []string{"mode"}}, body: `a mode=1,c=1 5000000`, want: []string{`{__name__="a_c"} 5 1`, `{__name__="a_mode"} 5 1`}},
		"empty text":             {o: influxdb.Options{TextLabels: []string{"mode"}}, body: `a mode="",c=1 5000000`, want: []string{`{__name__="a_c"} 5 1`}},
		"text and tag collide":   {o: influxdb.Options{TextLabels: []string{"x"}}, body: `a,x=1 x="2",c=1 5000000`, text: `two tags are both the label "x"`},
		"database":               {o: influxdb.Options{DatabaseLabel: "db", RetentionPolicyLabel: "rp"}, target: "/write?db=d&rp=r", body: "a b=1 5000000", want: []string{`{__name__="a_b", db="d", rp="r"} 5 1`}},
		"database and tag":       {o: influxdb.Options{DatabaseLabel: "db"}, target: "/write?db=d", body: "a,db=mine b=1 5000000", want: []string{`{__name__="a_b", db="mine"} 5 1`}},
		"extra label":            {target: "/write?extra_label=a%3Dx%3Dy&extra_label=c%3D1&extra_label=c%3D2", body: "m,a=mine b=1 5000000", want: []string{`{__name__="m_b", a="x=y", c="2"} 5 1`}},
		"extra label, version 2": {target: "/api/v2/write?extra_label=a%3Dx", body: "m b=1 5000000", want: []string{`{__name__="m_b", a="x"} 5 1`}},
		"no database":            {o: influxdb.Options{DatabaseLabel: "db"}, body: "a b=1 5000000", want: []string{`{__name__="a_b"} 5 1`}},
		"bucket":                 {o: influxdb.Options{BucketLabel: "bucket", OrgLabel: "org", DatabaseLabel: "db"}, target: "/api/v2/write?bucket=b&org=o&db=x", body: "a b=1 5000000", want: []string{`{__name__="a_b", bucket="b", org="o"} 5 1`}},
		"no time":                {body: "a b=1", want: []string{`{__name__="a_b"} 1700000000123 1`}},
		"milliseconds are cut":   {body: "a b=1 1999999\nc d=1 -1", want: []string{`{__name__="a_b"} 1 1`, `{__name__="c_d"} -1 1`}},
		"too many labels":        {body: "a" + strings.Repeat(",k=v", 100) + " b=1 5000000\nok b=1 5000000", want: []string{`{__name__="ok_b"} 5 1`}, text: "101 labels, at most 64"},
		"a tag that is too long": {body: "a,k=" + strings.Repeat("v", 20_000) + " b=1 5000000\nok b=1 5000000", want: []string{`{__name__="ok_b"} 5 1`}, text: "has 20000 bytes, at most 16384"},
	} {
		t.Run(name, func(t *testing.T) {
			sink := ingesttest.NewSink()
			in := newInput(sink, c.o)
			h, target := in.Write(), "/write"
			if c.target != "" {
				target = c.target
			}
			if strings.HasPrefix(target, "/api/v2") {
				h = in.WriteV2()
			}
			for range 2 {
				w := send(h, target, c.body)
				if c.text == "" {
					require.Equal(t, 204, w.Code, w.Body)
				} else {
					require.Equal(t, 400, w.Code)
					require.Contains(t, errorOf(t, w.Body.Bytes()), c.text)
				}
				require.Equal(t, c.want, samples(sink))
			}
		})
	}
}

// TestKeysOfRequests shows that the same bytes under other options or parameters are not
// taken for the series that they were before: the sink panics if they are.
func TestKeysOfRequests(t *testing.T) {
	sink := ingesttest.NewSink()
	for _, o := range []influxdb.Options{
		{}, {AppendValue: true}, {Separator: "-"}, {Characters: influxdb.UTF8}, {BareMeasurements: []string{"a"}}, {TextLabels: []string{"t"}},
		{DatabaseLabel: "db"}, {RetentionPolicyLabel: "db"}, {BucketLabel: "db"},
	} {
		in := newInput(sink, o)
		for _, target := range []string{"/write", "/write?db=x", "/write?db=y", "/write?rp=x", "/write?db=x&rp=y", "/write?extra_label=db%3Dx", "/write?db=x&extra_label=x%3Dz"} {
			require.Equal(t, 204, send(in.Write(), target, "a,x=y value=1,t=\"1\" 5000000\na,x=y value=1,t=\"2\" 5000000\na,x=y value=1 5000000\na,x=y value=1,v=2,t=\"1\" 5000000\n").Code)
		}
		require.Equal(t, 204, send(in.WriteV2(), "/api/v2/write?bucket=x", "a,x=y value=1,t=\"1\" 5000000\n").Code)
	}
	require.Equal(t, 33, sink.SeriesCount())
}

// TestDropped shows what is counted: text by rule, lines and labels by fault.
func TestDropped(t *testing.T) {
	sink := ingesttest.NewSink()
	r := newInput(sink, influxdb.Options{}).Receiver(influxdb.Precision{})
	got, err := r.Receive(t.Context(), []byte("a b=\"x\",c=1,d=\"y\" 5\na b=x\na,b= c=1,d=2\nx y=\"z\"\n"), nil)
	require.NoError(t, err)
	want := arrival.Result{Samples: 1}
	want.Dropped[arrival.ReasonText] = 3
	want.Rejected[arrival.ReasonInvalidLine] = 1
	want.Rejected[arrival.ReasonInvalidLabels] = 2
	require.Equal(t, want, got)

	_, err = r.Receive(t.Context(), []byte("\x1f\x8b\x08 junk"), nil)
	require.ErrorIs(t, err, ingest.ErrMalformed)
	_, err = r.Receive(t.Context(), make([]byte, 33<<20), nil)
	require.ErrorIs(t, err, ingest.ErrTooBig)
	_, err = r.Receive(t.Context(), nil, nil)
	require.NoError(t, err)
	sink.Err = &arrival.Unavailable{Reason: "disk_full", Err: errBroken}
	_, err = r.Receive(t.Context(), []byte("a b=1"), nil)
	require.ErrorIs(t, err, errBroken)
}

// TestSent shows that lines of a message that have no time get that of the part of the message that they are in, however
// often and in whatever company it comes, and that lines behind the last part count as sent now.
func TestSent(t *testing.T) {
	sink := ingesttest.NewSink()
	r := newInput(sink, influxdb.Options{}).Receiver(influxdb.Precision{})
	first, second := "a v=1\n# b\nb v=1\n", "\n c v=1\nd v=1 7000000\n"
	parts := []ingest.Sent{{To: len(first), Millis: 5}, {To: len(first), Millis: 99}, {To: len(first + second), Millis: 6}}
	_, err := r.Receive(t.Context(), []byte(first+second+"e v=1"), parts)
	require.NoError(t, err)
	_, err = r.Receive(t.Context(), []byte(first), parts[:1])
	require.NoError(t, err)
	_, err = r.Receive(t.Context(), []byte(second), []ingest.Sent{{To: len(second), Millis: 6}})
	require.NoError(t, err)
	require.Equal(t, []string{
		`{__name__="a_v"} 5 1`, `{__name__="b_v"} 5 1`, `{__name__="c_v"} 6 1`, `{__name__="d_v"} 7 1`, fmt.Sprint(`{__name__="e_v"} `, nowMillis, " 1"),
	}, samples(sink))
}

// TestTwins shows, against what a metric's name is by the rules, that of fields that bear one name the first key's are stored and
// each other refused, whether their keys are known or not: with few fields in a line and with many.
func TestTwins(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	letters := []string{"a", "_", "-", ".", "1", "é", `\ `, `\,`, `"`, `\"`, `\x`}
	unclean := regexp.MustCompile(`[^a-z0-9_]`)
	for round := range 300 {
		measurement := []string{"m", "prometheus"}[round%2]
		sink := ingesttest.NewSink()
		h := newInput(sink, influxdb.Options{}).Write()
		line, want, first, keys, refused := []string{}, map[string]string{}, map[string]string{}, []string{}, 0
		for i := range 2 + rng.IntN(1+round) {
			key := letters[rng.IntN(5)]
			for range rng.IntN(3) {
				key += letters[rng.IntN(len(letters))]
			}
			line, keys = append(line, fmt.Sprint(key, "=", i)), append(keys, key)
			name := unclean.ReplaceAllString(strings.NewReplacer(`\ `, " ", `\,`, ",", `\"`, `"`).Replace(key), "_")
			if measurement == "m" {
				name = "m_" + name
			} else if name[0] == '1' {
				name = "_" + name
			}
			if was, is := first[name]; is && was != key {
				refused++
				continue
			}
			first[name] = key
			want[name] = fmt.Sprintf("{__name__=%q} 5 %d", name, i)
		}
		// Half of the keys are known by lines of their own, which come before.
		for _, key := range keys[:len(keys)/2] {
			require.Equal(t, 204, send(h, "/write", measurement+" "+key+"=7,other=1 5000000").Code)
		}
		sink.Clear()
		for range 2 {
			w := send(h, "/write", measurement+" "+strings.Join(line, ",")+" 5000000")
			require.Equal(t, refused > 0, w.Code == 400, line)
			if refused > 0 {
				require.Contains(t, w.Body.String(), fmt.Sprintf(" dropped=%d", refused))
			}
			require.Equal(t, slices.Sorted(maps.Values(want)), samples(sink), line)
		}
	}
}
