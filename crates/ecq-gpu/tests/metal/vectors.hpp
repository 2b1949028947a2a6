// Vectors of 2, 3 and 4 components as Metal has them: constructors that take pieces, swizzles that are read, operators by
// component. `vec` is the type; a swizzle (`v.zyx`) is a view that becomes one.
#pragma once
#include <cstddef>
#include <type_traits>

namespace emu {

template <class T, int N, size_t Align = (N == 3 ? 4 : N) * sizeof(T)> struct vec;
template <class T, int N, int... I> struct swizzle {
  T all[N];
  operator vec<T, sizeof...(I)>() const;
};

// What a type is: number of components (1: a scalar) and their type.
template <class A> struct shape {
  static constexpr int size = 1;
  static constexpr bool is_vector = false;
  typedef A scalar;
};
template <class T, int N, size_t Align> struct shape<vec<T, N, Align>> {
  static constexpr int size = N;
  static constexpr bool is_vector = true;
  typedef T scalar;
};
template <class T, int N, int... I> struct shape<swizzle<T, N, I...>> {
  static constexpr int size = sizeof...(I);
  static constexpr bool is_vector = true;
  typedef T scalar;
};
template <class A> using scalar_of = typename shape<A>::scalar;
template <class... A> concept some_vector = (shape<A>::is_vector || ...);

// Component `i`; every component of a scalar is the scalar.
template <class A> A component(const A& a, int) { return a; }
template <class T, int N, size_t Align> T component(const vec<T, N, Align>& a, int i) { return a.all[i]; }
template <class T, int N, int... I> T component(const swizzle<T, N, I...>& a, int i) {
  constexpr int from[] = {I...};
  return a.all[from[i]];
}

// f of each component, as numbers of type R: a vector if one of the arguments is one.
template <class R, class F, class... A> auto map(F f, const A&... a) {
  if constexpr (some_vector<A...>) {
    constexpr int sizes[] = {shape<A>::size...};
    constexpr int size = [&] {
      int most = 1;
      for (int s : sizes) most = s > most ? s : most;
      return most;
    }();
    static_assert(((!shape<A>::is_vector || shape<A>::size == size) && ...), "vectors of different lengths");
    vec<R, size> out;
    for (int i = 0; i < size; i++) out.all[i] = R(f(component(a, i)...));
    return out;
  } else {
    return R(f(a...));
  }
}

// Names for components and swizzles of two and three letters; longer ones have not been needed.
#define LETTERS2(M, ...) M(x, 0, __VA_ARGS__) M(y, 1, __VA_ARGS__)
#define LETTERS3(M, ...) LETTERS2(M, __VA_ARGS__) M(z, 2, __VA_ARGS__)
#define LETTERS4(M, ...) LETTERS3(M, __VA_ARGS__) M(w, 3, __VA_ARGS__)
#define TWO2(a, i, N) swizzle<T, N, i, 0> a##x; swizzle<T, N, i, 1> a##y;
#define TWO3(a, i, N) TWO2(a, i, N) swizzle<T, N, i, 2> a##z;
#define TWO4(a, i, N) TWO3(a, i, N) swizzle<T, N, i, 3> a##w;
#define THREE(b, j, a, i, N, more) \
  swizzle<T, N, i, j, 0> a##b##x; swizzle<T, N, i, j, 1> a##b##y; swizzle<T, N, i, j, 2> a##b##z; more(a##b, i, j, N)
#define NONE(ab, i, j, N)
#define FOURTH(ab, i, j, N) swizzle<T, N, i, j, 3> ab##w;
#define AFTER3(a, i) THREE(x, 0, a, i, 3, NONE) THREE(y, 1, a, i, 3, NONE) THREE(z, 2, a, i, 3, NONE)
#define AFTER4(a, i) \
  THREE(x, 0, a, i, 4, FOURTH) THREE(y, 1, a, i, 4, FOURTH) THREE(z, 2, a, i, 4, FOURTH) THREE(w, 3, a, i, 4, FOURTH)

template <class T, int N> struct components;
template <class T> struct components<T, 2> {
  union {
    T all[2];
    struct { T x, y; };
    LETTERS2(TWO2, 2)
  };
  components() : all() {}
};
template <class T> struct components<T, 3> {
  union {
    T all[3];
    struct { T x, y, z; };
    LETTERS3(TWO3, 3)
    AFTER3(x, 0) AFTER3(y, 1) AFTER3(z, 2)
  };
  components() : all() {}
};
template <class T> struct components<T, 4> {
  union {
    T all[4];
    struct { T x, y, z, w; };
    LETTERS4(TWO4, 4)
    AFTER4(x, 0) AFTER4(y, 1) AFTER4(z, 2) AFTER4(w, 3)
  };
  components() : all() {}
};
#undef LETTERS2
#undef LETTERS3
#undef LETTERS4
#undef TWO2
#undef TWO3
#undef TWO4
#undef THREE
#undef NONE
#undef FOURTH
#undef AFTER3
#undef AFTER4

template <class T, int N, size_t Align> struct alignas(Align) vec : components<T, N> {
  vec() = default;
  // one scalar for all components
  template <class A> requires(!shape<A>::is_vector) explicit vec(const A& a) {
    for (T& each : this->all) each = T(a);
  }
  // another vector's components, converted
  template <class A> requires(shape<A>::is_vector) explicit(!std::is_same_v<scalar_of<A>, T>) vec(const A& a) {
    static_assert(shape<A>::size == N);
    put(0, a);
  }
  // scalars and shorter vectors, one after another
  template <class A, class B, class... C> vec(const A& a, const B& b, const C&... c) {
    static_assert(shape<A>::size + shape<B>::size + (0 + ... + shape<C>::size) == N);
    int at = put(put(0, a), b);
    ((at = put(at, c)), ...);
  }
  T& operator[](size_t i) { return this->all[i]; }
  const T& operator[](size_t i) const { return this->all[i]; }
  template <class A> vec& operator-=(const A& a) { return *this = *this - a; }

 private:
  template <class A> int put(int at, const A& a) {
    for (int i = 0; i < shape<A>::size; i++) this->all[at + i] = T(component(a, i));
    return at + shape<A>::size;
  }
};

template <class T, int N, int... I> swizzle<T, N, I...>::operator vec<T, sizeof...(I)>() const {
  return vec<T, sizeof...(I)>(all[I]...);
}

// The type of components that an operator works in: that of its vector.
template <class A, class B> using operand = std::conditional_t<shape<A>::is_vector, scalar_of<A>, scalar_of<B>>;
#define OPERATOR(op, R)                                                                            \
  template <class A, class B> requires some_vector<A, B> auto operator op(const A& a, const B& b) { \
    typedef operand<A, B> T;                                                                       \
    return map<R>([](T x, T y) { return R(x op y); }, a, b);                                       \
  }
OPERATOR(+, T)
OPERATOR(-, T)
OPERATOR(*, T)
OPERATOR(/, T)
OPERATOR(%, T)
OPERATOR(&, T)
OPERATOR(|, T)
OPERATOR(^, T)
OPERATOR(==, bool)
OPERATOR(!=, bool)
OPERATOR(<, bool)
OPERATOR(<=, bool)
OPERATOR(>, bool)
OPERATOR(>=, bool)
#undef OPERATOR
// counts of a shift may be of another type than what is shifted
#define SHIFT(op)                                                                                   \
  template <class A, class B> requires some_vector<A> auto operator op(const A& a, const B& b) {    \
    typedef scalar_of<A> T;                                                                         \
    return map<T>([](T x, scalar_of<B> y) { return T(x op y); }, a, b);                             \
  }
SHIFT(<<)
SHIFT(>>)
#undef SHIFT
template <class A> requires some_vector<A> auto operator-(const A& a) {
  return map<scalar_of<A>>([](auto x) { return -x; }, a);
}
template <class A> requires some_vector<A> auto operator~(const A& a) {
  return map<scalar_of<A>>([](auto x) { return ~x; }, a);
}
template <class A> requires some_vector<A> auto operator!(const A& a) {
  return map<bool>([](auto x) { return !x; }, a);
}

}  // namespace emu
