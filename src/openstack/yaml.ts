// SPDX-License-Identifier: Apache-2.0

// The package is CommonJS, to which a bundler gives no named exports where it is loaded by import(): it is named here,
// and this file is what is loaded when there is YAML to read.
export { LineCounter, parseDocument } from 'yaml'
