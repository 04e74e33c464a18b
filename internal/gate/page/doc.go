// Package page drives the page of the built server in a real headless Chromium, as a person would: with a mouse, with keys, on a wide
// screen and on a telephone's, and holds what it shows against the API.
//
// A tab collects what a person would not see: errors and warnings on the console, violations of the content security policy, requests to
// another host, dialogs. A test that saw any of them fails, unless it named it before. Every view is photographed, light, dark and narrow,
// into the folder that VARVE_ARTEFACTS names, which CI keeps.
//
// Nothing here sleeps: conditions are polled, in the page or in the API, until they hold or two minutes are over.
package page
