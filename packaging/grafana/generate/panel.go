package main

import "fmt"

// kind is Grafana's name of a kind of panel.
type kind string

const (
	graph    kind = "timeseries"
	number   kind = "stat"
	timeline kind = "state-timeline"
	table    kind = "table"
	words    kind = "text"
)

// panel is what is told of one.
type panel struct {
	kind          kind
	title         string
	description   string
	width, height int
	unit          string
	queries       []query
	// stacked graphs add up what they show.
	stacked bool
	// maximum of the axis, 0 for none. The minimum is 0 unless signed.
	maximum float64
	signed  bool
	// steps are where a number changes its colour, from the first one's on.
	steps []step
	// texts stand for numbers.
	texts map[string]string
	// interval is the least step of the queries.
	interval string
	// decimals of a number, -1 for as many as Grafana likes.
	decimals *int
	markdown string
}

// query is an expression and what its series are called.
type query struct {
	expr, legend string
	// instant asks for the last moment alone.
	instant bool
}

// step is a colour that begins at a value. Of the first the value doesn't count.
type step struct {
	from  float64
	color string
}

// object is the panel as Grafana has it.
func (p *panel) object(id int, at position) (object, error) {
	if p.title == "" || p.description == "" {
		return nil, fmt.Errorf("panel %d has no title or no description", id)
	}
	o := object{"id": id, "type": p.kind, "title": p.title, "description": p.description, "gridPos": at}
	if p.kind == words {
		o["options"] = object{"mode": "markdown", "content": p.markdown}
		return o, nil
	}
	if p.unit == "" || len(p.queries) == 0 {
		return nil, fmt.Errorf("panel %q has no unit or no query", p.title)
	}
	o["datasource"] = source
	o["targets"] = p.targets()
	o["fieldConfig"] = object{"defaults": p.field(), "overrides": []any{}}
	o["options"] = p.options()
	if p.interval != "" {
		o["interval"] = p.interval
	}
	return o, nil
}

func (p *panel) targets() []any {
	var targets []any
	for i, q := range p.queries {
		t := object{
			"refId": string(rune('A' + i)), "datasource": source, "editorMode": "code", "expr": q.expr,
			"legendFormat": q.legend, "range": !q.instant, "instant": q.instant,
		}
		if p.kind == table {
			t["format"] = "table"
		}
		targets = append(targets, t)
	}
	return targets
}

// field says how values are drawn.
func (p *panel) field() object {
	f := object{"unit": p.unit, "color": object{"mode": "palette-classic"}, "mappings": []any{}}
	steps := p.steps
	if len(steps) == 0 {
		steps = []step{{color: "green"}}
	}
	marks := []any{object{"color": steps[0].color, "value": nil}}
	for _, s := range steps[1:] {
		marks = append(marks, object{"color": s.color, "value": s.from})
	}
	f["thresholds"] = object{"mode": "absolute", "steps": marks}
	if p.decimals != nil {
		f["decimals"] = *p.decimals
	}
	if len(p.texts) > 0 {
		values := object{}
		for value, text := range p.texts {
			values[value] = object{"text": text}
		}
		f["mappings"] = []any{object{"type": "value", "options": values}}
	}
	switch p.kind {
	case graph:
		if !p.signed {
			f["min"] = 0
		}
		if p.maximum > 0 {
			f["max"] = p.maximum
		}
		fill, stacking := 8, "none"
		if p.stacked {
			fill, stacking = 40, "normal"
		}
		f["custom"] = object{
			"drawStyle": "line", "lineInterpolation": "linear", "lineWidth": 1, "fillOpacity": fill, "gradientMode": "none",
			"showPoints": "auto", "pointSize": 4, "spanNulls": false, "axisPlacement": "auto", "axisLabel": "",
			"stacking": object{"group": "A", "mode": stacking}, "thresholdsStyle": object{"mode": "off"},
			"scaleDistribution": object{"type": "linear"}, "hideFrom": object{"legend": false, "tooltip": false, "viz": false},
		}
	case timeline:
		f["color"] = object{"mode": "thresholds"}
		f["custom"] = object{"fillOpacity": 80, "lineWidth": 0, "hideFrom": object{"legend": false, "tooltip": false, "viz": false}}
	case table:
		f["custom"] = object{"align": "auto", "cellOptions": object{"type": "auto"}, "inspect": false}
	case number:
		f["color"] = object{"mode": "thresholds"}
	}
	return f
}

func (p *panel) options() object {
	switch p.kind {
	case number:
		return object{
			"reduceOptions": object{"calcs": []string{"lastNotNull"}, "fields": "", "values": false}, "colorMode": "value",
			"graphMode": "area", "justifyMode": "auto", "orientation": "auto", "textMode": "auto",
		}
	case timeline:
		return object{
			"showValue": "never", "mergeValues": true, "rowHeight": 0.8, "alignValue": "left",
			"legend":  object{"displayMode": "list", "placement": "bottom", "showLegend": true, "calcs": []string{}},
			"tooltip": object{"mode": "single", "sort": "none"},
		}
	case table:
		return object{"showHeader": true, "cellHeight": "sm", "footer": object{"show": false, "reducer": []string{"sum"}, "countRows": false, "fields": []string{}}}
	}
	return object{
		"legend":  object{"displayMode": "table", "placement": "bottom", "showLegend": true, "calcs": []string{"lastNotNull", "max"}, "sortBy": "Last *", "sortDesc": true},
		"tooltip": object{"mode": "multi", "sort": "desc"},
	}
}
