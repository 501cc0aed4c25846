// Package console looks at the console's pages in Chromium, as people do.
//
// A standalone gets demo data; Chromium opens every page at the size of a desktop and of a
// phone, in light and dark, and without scripts. The numbers must be those that were sent,
// and no page may have an error in the browser's console, ask another host, be wider than
// the screen, or have a serious finding of axe-core. Playwright and axe-core come from npm
// by the lock file here, into the repository's .cache.
//
// The tests run with UPTAKE_LONG=1. UPTAKE_SCREENSHOTS names a folder that gets a picture
// of each page.
package console
