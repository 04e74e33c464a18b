package main

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// schemaVersion is that of Grafana 10.0. Later ones migrate it when they load it.
const schemaVersion = 38

// source names the data source that the user picked.
var source = reference{Type: "prometheus", UID: "${datasource}"}

// dashboard is what is told of one.
type dashboard struct {
	uid, title, description string
	tags                    []string
	// from is the range of time that it opens with, refresh how often it is brought up to date, "" for never.
	from, refresh string
	// utc shows and asks in UTC whatever the browser's zone is, so that steps begin where buckets do.
	utc       bool
	variables []variable
	rows      []row
}

// row is a heading with the panels below it.
type row struct {
	title  string
	panels []panel
	// collapsed rows ask their queries only when they are opened.
	collapsed bool
}

// reference names a data source.
type reference struct {
	Type string `json:"type"`
	UID  string `json:"uid"`
}

// text is the dashboard as Grafana imports it.
func (d *dashboard) text() ([]byte, error) {
	placed, err := d.place()
	if err != nil {
		return nil, fmt.Errorf("dashboard %s: %w", d.uid, err)
	}
	zone := "browser"
	if d.utc {
		zone = "utc"
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err = e.Encode(object{
		"uid": d.uid, "title": d.title, "description": d.description, "tags": d.tags,
		"schemaVersion": schemaVersion, "version": 1, "editable": true, "graphTooltip": 1, "timezone": zone,
		"time": object{"from": d.from, "to": "now"}, "refresh": d.refresh, "timepicker": object{}, "weekStart": "",
		"fiscalYearStartMonth": 0, "liveNow": false, "links": []any{}, "id": nil,
		"annotations": object{"list": []any{object{
			"builtIn": 1, "datasource": reference{"grafana", "-- Grafana --"}, "enable": true, "hide": true,
			"iconColor": "rgba(0, 211, 255, 1)", "name": "Annotations & Alerts", "type": "dashboard",
		}}},
		"templating": object{"list": templates(d.variables)}, "panels": placed,
	})
	if err != nil {
		return nil, fmt.Errorf("dashboard %s: %w", d.uid, err)
	}
	return b.Bytes(), nil
}

// object is a JSON object; encoding/json sorts its keys, so that the same dashboard is the same text.
type object map[string]any

// gridWidth is how many columns Grafana's grid has.
const gridWidth = 24

// place gives rows and panels their ids and their places: panels from left to right, and a new
// line where the next one doesn't fit.
func (d *dashboard) place() ([]any, error) {
	var placed []any
	id, y := 0, 0
	for _, r := range d.rows {
		id++
		head := object{
			"id": id, "type": "row", "title": r.title, "collapsed": r.collapsed,
			"gridPos": position{H: 1, W: gridWidth, Y: y},
		}
		y++
		inside := []any{}
		x, height := 0, 0
		for _, p := range r.panels {
			if p.width < 1 || p.width > gridWidth || p.height < 1 {
				return nil, fmt.Errorf("panel %q has no size", p.title)
			}
			if x+p.width > gridWidth {
				x, y, height = 0, y+height, 0
			}
			id++
			made, err := p.object(id, position{H: p.height, W: p.width, X: x, Y: y})
			if err != nil {
				return nil, err
			}
			inside = append(inside, made)
			x, height = x+p.width, max(height, p.height)
		}
		y += height
		if r.collapsed {
			head["panels"] = inside
			placed = append(placed, head)
			continue
		}
		head["panels"] = []any{}
		placed = append(append(placed, head), inside...)
	}
	return placed, nil
}

// position is a place on the grid, in columns and in units of 30 pixels.
type position struct {
	H int `json:"h"`
	W int `json:"w"`
	X int `json:"x"`
	Y int `json:"y"`
}

// variable is a choice at the head of a dashboard: values of a label that a query finds.
type variable struct {
	name, label, description string
	query                    string
	// single allows one value alone; otherwise any number, and all to begin with.
	single bool
}

// templates are the choice of the data source and those of the variables.
func templates(variables []variable) []any {
	list := []any{object{
		"name": "datasource", "label": "Data source", "description": "A Prometheus data source that leads to Varve.",
		"type": "datasource", "query": "prometheus", "regex": "", "refresh": 1, "hide": 0, "multi": false, "includeAll": false,
		"options": []any{}, "current": object{}, "skipUrlSync": false, "queryValue": "",
	}}
	for _, v := range variables {
		t := object{
			"name": v.name, "label": v.label, "description": v.description, "type": "query", "datasource": source,
			"definition": v.query, "query": object{"query": v.query, "refId": "PrometheusVariableQueryEditor-VariableQuery"},
			"regex": "", "refresh": 2, "sort": 1, "hide": 0, "multi": !v.single, "includeAll": !v.single,
			"options": []any{}, "current": object{}, "skipUrlSync": false,
		}
		if !v.single {
			// An expression of its own, so that All is short however many values there are.
			t["allValue"] = ".*"
			t["current"] = object{"selected": true, "text": []string{"All"}, "value": []string{"$__all"}}
		}
		list = append(list, t)
	}
	return list
}
