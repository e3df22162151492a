// SPDX-License-Identifier: Apache-2.0

// cni: the specification in code: configuration, environment, versions, results, errors, exec, cache.
// No kernel, no OpenStack, no plugin: rooms above bring those.

export * from './codes.ts'
export * from './error.ts'
export * from './plugin.ts'
export * from './result.ts'
