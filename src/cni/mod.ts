// SPDX-License-Identifier: Apache-2.0

// cni: the specification in code: configuration, environment, versions, results, errors, exec, cache.
// No kernel, no OpenStack, no plugin: rooms above bring those. The one room that may start a process: a foreign plugin.

export * from './cache.ts'
export * from './codes.ts'
export * from './config.ts'
export * from './convert.ts'
export * from './decode.ts'
export * from './delegate.ts'
export * from './dispatch.ts'
export * from './environment.ts'
export * from './error.ts'
export * from './exec.ts'
export * from './json.ts'
export * from './netns.ts'
export * from './network-config.ts'
export * from './plugin.ts'
export * from './print.ts'
export * from './result.ts'
export * from './runtime.ts'
export * from './to-cni-error.ts'
export * from './undo.ts'
export * from './versions.ts'
